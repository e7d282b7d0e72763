# GFL with delta = 4, ResNet-50, 1x. Row of the paper: table 2c "delta = 4".
# By ATSSGFLHead, since GFLHead has MMDetection's arguments and no delta.
_base_ = '../atss/atss_r50_fpn_joint_1x_coco.py'

model = dict(bbox_head=dict(box=dict(type='mmdet_gfl.GeneralBox', delta=4.0)))
