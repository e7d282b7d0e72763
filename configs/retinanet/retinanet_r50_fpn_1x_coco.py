# RetinaNet, ResNet-50, 1x: MMDetection's retinanet_r50_fpn_1x_coco. Row of the paper: table 1b "RetinaNet".
_base_ = [
    '../_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]

model = dict(
    bbox_head=dict(
        quality=dict(type='mmdet_gfl.NoQuality'),
        box=dict(type='mmdet_gfl.DiracBox'),
    ),
)
