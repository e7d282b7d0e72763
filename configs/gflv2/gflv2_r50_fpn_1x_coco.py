# GFLv2 (arXiv:2011.12885), ResNet-50, 1x. A released model.
_base_ = '../gfl/gfl_r50_fpn_1x_coco.py'

model = dict(bbox_head=dict(type='mmdet_gfl.GFocalHead', reg_topk=4, reg_channels=64, add_mean=True))
