# SSD300 with GFL, VGG-16. Not in the paper.
_base_ = [
    '../_base_/models/ssd300.py',
    '../_base_/datasets/coco_ssd300.py',
    '../_base_/schedules/schedule_ssd.py',
    '../_base_/default_runtime.py',
]

model = dict(
    bbox_head=dict(
        quality=dict(type='mmdet_gfl.JointQuality'),
        box=dict(type='mmdet_gfl.GeneralBox'),
    ),
)
