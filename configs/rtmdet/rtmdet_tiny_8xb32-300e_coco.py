# RTMDet-tiny with Dirac boxes, 300 epochs: MMDetection's rtmdet_tiny_8xb32-300e_coco.
# Table "rtmdet" "RTMDet-tiny, Dirac delta".
# Mosaic and mix-up draw from fewer cached images, and half of the images are not mixed.
_base_ = './rtmdet_s_8xb32-300e_coco.py'

checkpoint = (
    'https://download.openmmlab.com/mmdetection/v3.0/rtmdet/cspnext_rsb_pretrain/cspnext-tiny_imagenet_600e.pth'
)

model = dict(
    backbone=dict(deepen_factor=0.167, widen_factor=0.375, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384], out_channels=96),
    bbox_head=dict(in_channels=96, feat_channels=96),
)

train_pipeline = [
    dict(step, max_cached_images=20, random_pop=False)
    if step['type'] == 'CachedMosaic'
    else dict(step, max_cached_images=10, random_pop=False, prob=0.5)
    if step['type'] == 'CachedMixUp'
    else step
    for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
