# FCOS with GFL, ResNet-50, 1x. Not in the paper; the weight of GIoU is that of eq. (8), twice FCOS's own.
_base_ = './fcos_r50-caffe_fpn_joint_1x_coco.py'

model = dict(
    bbox_head=dict(
        box=dict(type='mmdet_gfl.GeneralBox'),
        loss_bbox=dict(loss_weight=2.0),
    ),
)
