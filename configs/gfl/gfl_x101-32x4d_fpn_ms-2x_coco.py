# GFL, ResNeXt-101 32x4d, 2x on images of many scales. A released model; not in the paper's tables.
_base_ = './gfl_r101_fpn_ms-2x_coco.py'

model = dict(
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=4,
        init_cfg=dict(checkpoint='open-mmlab://resnext101_32x4d'),
    ),
)
