# 1x: 12 epochs with steps at 8 and 11, linear warm-up of 500 iterations; SGD, lr 0.01 for 16 images per batch.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]

# The configs released with the paper do not clip (grad_clip=None, above it a clipping at 35 commented out), double the
# lr of biases, take no weight decay on them, and warm up from a third of the lr (github.com/implus/GFocal,
# configs/gfl_r50_1x.py and the five ms2x). Here, as in MMDetection's, all parameters are alike and the warm-up starts
# at a thousandth. Clipping at 35 is far above the norms of a healthy run; it saves one whose first iterations explode.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=35, norm_type=2),
)

# On: with other than 8 GPUs x 2 images the lr is scaled in proportion. One GPU with 2 images trains at 0.00125, with 8
# at 0.005. What optim_wrapper.accumulative_counts gathers is not counted: 8 x 2 images on one GPU want enable=False.
auto_scale_lr = dict(enable=True, base_batch_size=16)
