# RTMDet as in MMDetection: 300 epochs of AdamW, lr 0.004 for 256 images per batch, constant for half of them and then
# along a cosine to a twentieth; no weight decay on norms and biases, no clipping. Evaluated every 10 epochs, in the
# last 20, which train without mosaic and mix-up, every one.
_base_ = './schedule_1x.py'

max_epochs = 300
stage2_num_epochs = 20
interval = 10
base_lr = 0.004

train_cfg = dict(
    max_epochs=max_epochs,
    val_interval=interval,
    dynamic_intervals=[(max_epochs - stage2_num_epochs, 1)],
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR',
        eta_min=base_lr * 0.05,
        begin=max_epochs // 2,
        end=max_epochs,
        T_max=max_epochs // 2,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=base_lr, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, bypass_duplicate=True),
)
auto_scale_lr = dict(base_batch_size=256)
