# FoveaBox, ResNet-50, 1x: MMDetection's fovea_r50_fpn_4xb4-1x_coco. Row of the paper: table 1b "FoveaBox".
_base_ = [
    '../_base_/models/fovea_r50_fpn.py',
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
train_dataloader = dict(batch_size=4, num_workers=4)  # 4 GPUs x 4 images
