# GFL, ResNet-50, 2x on images of many scales. A released model; not in the paper's tables.
_base_ = './gfl_r50_fpn_1x_coco.py'

# The shorter side at random between 480 and 800 px, the longer at most 1333 px; tested at 800, as in 1x.
train_pipeline = [
    dict(type='RandomResize', scale=[(1333, 480), (1333, 800)], keep_ratio=True) if step['type'] == 'Resize' else step
    for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[16, 22], gamma=0.1),
]
