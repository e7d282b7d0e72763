# GFL, ResNet-50, 1x. Rows of the paper: table 2b "n = 16", 2c "delta = 1", 3 "QFL + DFL (GFL)".
# Backbone, neck, anchors, assignment and test settings are ATSS's. The scores are class x IoU in one: thresholds from
# focal-loss models do not carry over.
_base_ = [
    '../_base_/models/atss_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='GFL',
    bbox_head=dict(
        _delete_=True,
        type='mmdet_gfl.GFLHead',
        num_classes=80,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        anchor_generator=_base_.model.bbox_head.anchor_generator,
        loss_cls=dict(type='mmdet_gfl.QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type='mmdet_gfl.DistributionFocalLoss', loss_weight=0.25),
        reg_max=16,
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
    ),
)
