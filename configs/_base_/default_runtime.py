default_scope = 'mmdet'

# With mmcv-lite, MMDetection can only be imported after mmdet_gfl. A child config that sets custom_imports replaces
# this line: it must list mmdet_gfl first.
custom_imports = dict(imports=['mmdet_gfl'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # A kill in the middle of a checkpoint, or a full disk, leaves the one before.
    checkpoint=dict(type='mmdet_gfl.SafeCheckpointHook', interval=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
)
custom_hooks = [
    dict(type='mmdet_gfl.NumClassCheckHook'),  # num_classes of the head and classes of the data set agree
    dict(type='mmdet_gfl.CheckGroundTruthHook'),  # boxes are finite, labels in range; looked at before the GPU
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)

log_level = 'INFO'
load_from = None
resume = False
