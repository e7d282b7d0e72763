# GFLv2 (arXiv:2011.12885), ResNet-101, 2x on images of many scales. A released model.
_base_ = './gflv2_r50_fpn_ms-2x_coco.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
