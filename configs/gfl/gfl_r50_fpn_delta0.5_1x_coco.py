# GFL with delta = 0.5, ResNet-50, 1x. Row of the paper: table 2c "delta = 0.5".
_base_ = './gfl_r50_fpn_1x_coco.py'

model = dict(bbox_head=dict(delta=0.5))
