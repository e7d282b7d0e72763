# SSD: 24 epochs, of 5 rounds each, with steps at 16 and 22; lr 0.002 for 64 images per batch, more weight decay.
_base_ = './schedule_1x.py'

train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[16, 22], gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(lr=0.002, weight_decay=0.0005))
auto_scale_lr = dict(base_batch_size=64)
