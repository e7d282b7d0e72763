# RetinaNet with QFL, ResNet-50, 1x. Row of the paper: table 1b "RetinaNet + joint w/ QFL".
_base_ = './retinanet_r50_fpn_1x_coco.py'

model = dict(bbox_head=dict(quality=dict(type='mmdet_gfl.JointQuality')))
