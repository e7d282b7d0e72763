# RTMDet-tiny with General boxes and DFL, 300 epochs. Table "rtmdet" "RTMDet-tiny, General w/ DFL", not trained here.
_base_ = './rtmdet_tiny_8xb32-300e_coco.py'

# n as in rtmdet_l_general-dfl_8xb32-300e_coco.py: the strides and the image size are the same.
model = dict(bbox_head=dict(box=dict(type='mmdet_gfl.GeneralBox', reg_max=16)))
