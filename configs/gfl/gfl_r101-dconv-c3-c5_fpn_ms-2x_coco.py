# GFL, ResNet-101 with deformable convolutions in C3-C5, 2x on images of many scales. A released model.
# Needs compiled mmcv, or a torchvision that fits torch. As in MMDetection, whose checkpoint this fits, the convolutions
# are DCN without masks; the authors' have masks (model.backbone.dcn.type=DCNv2; their configs/gfl_dcn_r101_ms2x.py).
_base_ = './gfl_r101_fpn_ms-2x_coco.py'

model = dict(
    backbone=dict(
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    ),
)
