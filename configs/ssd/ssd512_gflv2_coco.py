# SSD512 with GFLv2, VGG-16. Not in the paper.
_base_ = './ssd512_gfl_coco.py'

model = dict(bbox_head=dict(quality=dict(type='mmdet_gfl.DistributionGuidedQuality')))
