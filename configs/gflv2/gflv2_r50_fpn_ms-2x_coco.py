# GFLv2 (arXiv:2011.12885), ResNet-50, 2x on images of many scales. A released model.
_base_ = '../gfl/gfl_r50_fpn_ms-2x_coco.py'

model = dict(bbox_head=dict(type='mmdet_gfl.GFocalHead', reg_topk=4, reg_channels=64, add_mean=True))

# The shorter side at random between 480 and 960 px (GFL: 800), the longer at most 1333 px; tested at 800, as in 1x.
train_pipeline = [
    dict(step, scale=[(1333, 480), (1333, 960)]) if step['type'] == 'RandomResize' else step
    for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
