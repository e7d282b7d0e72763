# RTMDet-l with General boxes and DFL, 300 epochs. Table "rtmdet" "RTMDet-l, General w/ DFL", not trained here.
_base_ = './rtmdet_l_8xb32-300e_coco.py'

# n = 16 strides. At the coarsest stride, 32 px, an object as large as the image, 640 px, is 10 strides from its centre
# to its sides, and DynamicSoftLabelAssigner takes locations near the centre: at 3 strides its centre prior, 10^(d - 3),
# costs 1. So a side is at most 13 strides away. At the strides 8 and 16 such an object would take n = 40 and 20 for its
# centre alone; within 16 strides the decoded boxes overlap less, and the assigner, which measures the overlap, chooses
# the locations at stride 32.
model = dict(bbox_head=dict(box=dict(type='mmdet_gfl.GeneralBox', reg_max=16)))
