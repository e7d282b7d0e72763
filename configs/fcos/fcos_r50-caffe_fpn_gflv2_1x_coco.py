# FCOS with GFLv2, ResNet-50, 1x. Not in the paper.
_base_ = './fcos_r50-caffe_fpn_gfl_1x_coco.py'

model = dict(bbox_head=dict(quality=dict(type='mmdet_gfl.DistributionGuidedQuality')))
