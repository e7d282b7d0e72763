# FCOS with MMDetection's improvements (centre sampling, distances in strides, centerness on the box tower, GIoU), on
# Detectron2's ResNet-50: its images stay BGR in 0..255, its batch norms stay as they are.
_base_ = './r50_fpn.py'

model = dict(
    type='FCOS',
    data_preprocessor=dict(mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        norm_cfg=dict(requires_grad=False),
        style='caffe',
        init_cfg=dict(checkpoint='open-mmlab://detectron2/resnet50_caffe'),
    ),
    neck=dict(relu_before_extra_convs=True),
    bbox_head=dict(
        type='mmdet_gfl.FCOSGFLHead',
        strides=[8, 16, 32, 64, 128],
        center_sampling=True,
        norm_on_bbox=True,
        centerness_on_reg=True,
        conv_bias=True,
        dcn_on_last_conv=False,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
)
