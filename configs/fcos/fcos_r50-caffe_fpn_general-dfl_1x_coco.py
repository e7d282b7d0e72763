# FCOS with General boxes and DFL, ResNet-50, 1x. Row of the paper: table 2a "FCOS, General w/ DFL".
_base_ = './fcos_r50-caffe_fpn_1x_coco.py'

model = dict(bbox_head=dict(box=dict(type='mmdet_gfl.GeneralBox')))
