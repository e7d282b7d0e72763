# ATSS with its centerness branch and Dirac boxes, ResNet-50, 1x: MMDetection's atss_r50_fpn_1x_coco.
# Rows of the paper: table 1a "ATSS, centerness-branch", 2a "ATSS, Dirac delta", 3 "baseline".
_base_ = [
    '../_base_/models/atss_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]

model = dict(
    bbox_head=dict(
        quality=dict(type='mmdet_gfl.CenternessBranch'),
        box=dict(type='mmdet_gfl.DiracBox'),
    ),
)
