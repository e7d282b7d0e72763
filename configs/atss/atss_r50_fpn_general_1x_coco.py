# ATSS with General boxes without DFL, ResNet-50, 1x. Row of the paper: table 2a "ATSS, General".
_base_ = './atss_r50_fpn_1x_coco.py'

model = dict(bbox_head=dict(box=dict(type='mmdet_gfl.GeneralBox', loss_dfl=None)))
