# FoveaBox with QFL, ResNet-50, 1x. Row of the paper: table 1b "FoveaBox + joint w/ QFL".
_base_ = './fovea_r50_fpn_4xb4-1x_coco.py'

model = dict(bbox_head=dict(quality=dict(type='mmdet_gfl.JointQuality')))
