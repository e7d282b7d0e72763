# ATSS guided by the IoU, ResNet-50, 1x. Row of the paper: table 1a "ATSS, IoU-guided".
_base_ = './atss_r50_fpn_1x_coco.py'

model = dict(bbox_head=dict(quality=dict(type='mmdet_gfl.IoUGuided')))
