# ATSS with QFL, ResNet-50, 1x. Rows of the paper: table 1a "ATSS, joint w/ QFL", 1c "beta = 2", 3 "QFL".
_base_ = './atss_r50_fpn_1x_coco.py'

model = dict(
    bbox_head=dict(
        quality=dict(
            type='mmdet_gfl.JointQuality',
            loss_cls=dict(type='mmdet_gfl.QualityFocalLoss', beta=2.0, loss_weight=1.0),
        ),
    ),
)
