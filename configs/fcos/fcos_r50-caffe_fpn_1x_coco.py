# FCOS with its centerness branch and Dirac boxes, ResNet-50, 1x: what MMDetection calls
# fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.
# Rows of the paper: table 1a "FCOS, centerness-branch", 2a "FCOS, Dirac delta".
_base_ = [
    '../_base_/models/fcos_r50-caffe_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x_fcos.py',
    '../_base_/default_runtime.py',
]

model = dict(
    bbox_head=dict(
        quality=dict(type='mmdet_gfl.CenternessBranch'),
        box=dict(type='mmdet_gfl.DiracBox'),
    ),
)
