# ATSS with GFLv2, ResNet-50, 1x: gflv2_r50_fpn_1x_coco by the two axes. Not in the paper.
_base_ = './atss_r50_fpn_joint_1x_coco.py'

model = dict(
    bbox_head=dict(
        quality=dict(type='mmdet_gfl.DistributionGuidedQuality'),
        box=dict(type='mmdet_gfl.GeneralBox'),
    ),
)
