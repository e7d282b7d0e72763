# GFL with n = 18, ResNet-50, 1x. Row of the paper: table 2b "n = 18".
_base_ = './gfl_r50_fpn_1x_coco.py'

model = dict(bbox_head=dict(reg_max=18))
