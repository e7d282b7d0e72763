# GFLv2, ResNet-101 with deformable convolutions in C3-C5, 2x on images of many scales. A released model.
# Needs compiled mmcv, or a torchvision that fits torch. The convolutions are DCN without masks, as in the authors'
# configs/gfocal/gfocal_r101_dcn_fpn_ms2x.py.
_base_ = './gflv2_r101_fpn_ms-2x_coco.py'

model = dict(
    backbone=dict(
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    ),
)
