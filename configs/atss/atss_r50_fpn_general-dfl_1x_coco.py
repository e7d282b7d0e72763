# ATSS with General boxes and DFL, ResNet-50, 1x. Rows of the paper: table 2a "ATSS, General w/ DFL", 3 "DFL".
_base_ = './atss_r50_fpn_1x_coco.py'

model = dict(bbox_head=dict(box=dict(type='mmdet_gfl.GeneralBox')))
