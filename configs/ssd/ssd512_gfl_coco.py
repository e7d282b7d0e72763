# SSD512 with GFL, VGG-16. Not in the paper.
_base_ = './ssd512_joint_coco.py'

model = dict(bbox_head=dict(box=dict(type='mmdet_gfl.GeneralBox')))
