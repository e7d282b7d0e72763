# FoveaBox as in MMDetection, for any quality and Dirac or General boxes; without either it is full GFL.
_base_ = './r50_fpn.py'

model = dict(
    type='FOVEA',
    neck=dict(add_extra_convs='on_input'),
    bbox_head=dict(
        type='mmdet_gfl.FoveaGFLHead',
        strides=[8, 16, 32, 64, 128],
        base_edge_list=[16, 32, 64, 128, 256],
        scale_ranges=((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048)),
        sigma=0.4,
        with_deform=False,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.4, loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=0.11, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(
        _delete_=True, nms_pre=1000, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
    ),
)
