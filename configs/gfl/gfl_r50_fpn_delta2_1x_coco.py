# GFL with delta = 2, ResNet-50, 1x. Row of the paper: table 2c "delta = 2".
_base_ = './gfl_r50_fpn_1x_coco.py'

model = dict(bbox_head=dict(delta=2.0))
