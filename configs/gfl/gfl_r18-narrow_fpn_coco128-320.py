# A check that takes minutes, not days: a narrow GFL from scratch overfits 128 COCO images at 320 px.
# COCO128_ROOT names the folder with annotations/ and train2017/; training and test images are the same.
_base_ = './gfl_r50_fpn_1x_coco.py'

data_root = '{{$COCO128_ROOT:data/coco128/}}'
ann_file = 'annotations/instances_train2017.json'
data_prefix = dict(img='train2017/')
image_size = (320, 320)

model = dict(
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),  # no weights to freeze
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=2),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    batch_sampler=None,
    dataset=dict(
        data_root=data_root,
        ann_file=ann_file,
        data_prefix=data_prefix,
        filter_cfg=dict(_delete_=True, filter_empty_gt=False),  # the two empty images train too
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    dataset=dict(data_root=data_root, ann_file=ann_file, data_prefix=data_prefix, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + '/' + ann_file)
test_evaluator = val_evaluator

max_epochs = 50
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[40, 47], gamma=0.1),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.001, weight_decay=0.0001),
    clip_grad=dict(max_norm=10, norm_type=2),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
default_hooks = dict(
    logger=dict(interval=8),
    checkpoint=dict(interval=10, max_keep_ckpts=2),
)
