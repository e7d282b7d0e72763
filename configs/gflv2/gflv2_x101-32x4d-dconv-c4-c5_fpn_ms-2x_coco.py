# GFLv2, ResNeXt-101 32x4d with deformable convolutions in C4-C5, 2x on images of many scales. A released model.
# Needs compiled mmcv, or a torchvision that fits torch. The convolutions are DCN without masks in C4-C5, as in the
# authors' configs/gfocal/gfocal_x101_dcn_fpn_ms2x.py; their README says C3-C5.
_base_ = './gflv2_r101_fpn_ms-2x_coco.py'

model = dict(
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=4,
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
        init_cfg=dict(checkpoint='open-mmlab://resnext101_32x4d'),
    ),
)
