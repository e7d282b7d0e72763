# ATSS with QFL, beta 2.5, ResNet-50, 1x. Row of the paper: table 1c "beta = 2.5".
_base_ = './atss_r50_fpn_joint_1x_coco.py'

model = dict(bbox_head=dict(quality=dict(loss_cls=dict(beta=2.5))))
