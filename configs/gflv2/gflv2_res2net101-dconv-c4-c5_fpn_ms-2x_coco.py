# GFLv2, Res2Net-101 with deformable convolutions in C4-C5, 2x on images of many scales. A released model.
# Needs compiled mmcv, or a torchvision that fits torch. The convolutions are DCN without masks, as in the authors'
# configs/gfocal/gfocal_r2n101_dcn_fpn_ms2x.py.
_base_ = './gflv2_r101_fpn_ms-2x_coco.py'

model = dict(
    backbone=dict(
        type='Res2Net',
        scales=4,
        base_width=26,
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
        init_cfg=dict(checkpoint='open-mmlab://res2net101_v1d_26w_4s'),
    ),
)
