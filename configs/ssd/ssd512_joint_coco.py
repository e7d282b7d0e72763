# SSD512 with QFL, VGG-16. Row of the paper: table 1b "SSD512 + joint w/ QFL".
_base_ = './ssd512_coco.py'

model = dict(bbox_head=dict(quality=dict(type='mmdet_gfl.JointQuality')))
