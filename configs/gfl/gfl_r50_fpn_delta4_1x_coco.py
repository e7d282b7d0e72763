# GFL with delta = 4, ResNet-50, 1x. Row of the paper: table 2c "delta = 4".
_base_ = './gfl_r50_fpn_1x_coco.py'

model = dict(bbox_head=dict(delta=4.0))
