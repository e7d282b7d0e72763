# FoveaBox with GFL, ResNet-50, 1x. Not in the paper.
_base_ = './fovea_r50_fpn_joint_4xb4-1x_coco.py'

model = dict(
    bbox_head=dict(
        box=dict(type='mmdet_gfl.GeneralBox'),
        loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=2.0),
    ),
)
