# RTMDet-l with Dirac boxes, 300 epochs: MMDetection's rtmdet_l_8xb32-300e_coco.
# Table "rtmdet" "RTMDet-l, Dirac delta".
_base_ = [
    '../_base_/models/rtmdet_l.py',
    '../_base_/datasets/coco_rtmdet.py',
    '../_base_/schedules/schedule_rtmdet.py',
    '../_base_/default_runtime.py',
]

model = dict(
    bbox_head=dict(
        quality=dict(type='mmdet_gfl.AssignedQuality'),
        box=dict(type='mmdet_gfl.DiracBox'),
    ),
)

default_hooks = dict(checkpoint=dict(interval=_base_.interval, max_keep_ckpts=3))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True, priority=49),
    dict(
        type='PipelineSwitchHook',
        switch_epoch=_base_.max_epochs - _base_.stage2_num_epochs,
        switch_pipeline=_base_.train_pipeline_stage2,
    ),
]
