# FCOS with QFL, ResNet-50, 1x. Row of the paper: table 1a "FCOS, joint w/ QFL".
_base_ = './fcos_r50-caffe_fpn_1x_coco.py'

model = dict(bbox_head=dict(quality=dict(type='mmdet_gfl.JointQuality')))
