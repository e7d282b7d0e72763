# RetinaNet with GFLv2, ResNet-50, 1x. Not in the paper.
_base_ = './retinanet_r50_fpn_gfl_1x_coco.py'

model = dict(bbox_head=dict(quality=dict(type='mmdet_gfl.DistributionGuidedQuality')))
