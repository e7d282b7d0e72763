# GFL, ResNeXt-101 32x4d with deformable convolutions in C4-C5, 2x on images of many scales. A released model.
# Needs compiled mmcv, or a torchvision that fits torch. As in MMDetection, whose checkpoint this fits, the convolutions
# are DCN without masks in C4-C5; the authors' have masks (model.backbone.dcn.type=DCNv2), in C4-C5 by their README and
# in C3-C5 by their configs/gfl_dcn_x101_ms2x.py.
_base_ = './gfl_x101-32x4d_fpn_ms-2x_coco.py'

model = dict(
    backbone=dict(
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
    ),
)
