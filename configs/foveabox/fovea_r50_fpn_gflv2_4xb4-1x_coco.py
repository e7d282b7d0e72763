# FoveaBox with GFLv2, ResNet-50, 1x. Not in the paper.
_base_ = './fovea_r50_fpn_gfl_4xb4-1x_coco.py'

model = dict(bbox_head=dict(quality=dict(type='mmdet_gfl.DistributionGuidedQuality')))
