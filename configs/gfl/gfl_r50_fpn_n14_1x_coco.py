# GFL with n = 14, ResNet-50, 1x. Row of the paper: table 2b "n = 14".
_base_ = './gfl_r50_fpn_1x_coco.py'

model = dict(bbox_head=dict(reg_max=14))
