# SSD512, VGG-16: MMDetection's ssd512_coco. Row of the paper: table 1b "SSD512".
_base_ = [
    '../_base_/models/ssd512.py',
    '../_base_/datasets/coco_ssd512.py',
    '../_base_/schedules/schedule_ssd.py',
    '../_base_/default_runtime.py',
]

model = dict(
    bbox_head=dict(
        quality=dict(type='mmdet_gfl.NoQuality'),
        box=dict(type='mmdet_gfl.DiracBox'),
    ),
)
