# The built-in shapes (docs/shapes.md), drawn in memory. `shapes://train=5000/width=640/seed=1` is another set; it and a
# folder that tools/dataset_converters/make_shapes.py wrote can be given as SHAPES_ROOT in the environment.
_base_ = './coco_detection.py'

dataset_type = 'mmdet_gfl.ShapesDataset'
data_root = '{{$SHAPES_ROOT:shapes://}}'
image_size = (320, 320)

train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = image_size

train_dataloader = dict(
    batch_size=8,
    batch_sampler=None,  # the images are all of one shape
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(_delete_=True, filter_empty_gt=False),  # the empty images train too
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + '/annotations/instances_val.json')
test_evaluator = val_evaluator
