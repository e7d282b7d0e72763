#!/usr/bin/env bash
# The commands behind the reports of this folder: a report's name is that of its work dir. All of it takes days; run
# what you want to see, from the project's folder. The same command resumes a killed run.
set -euo pipefail

FROZEN="--preset mini --mini pretrained=1 epochs=4 val=1000"
python tools/reproduce.py run --tables 1a 2a 3 --rows 'atss/*' 'gfl/*' $FROZEN --seeds 0 1 2 3 4 5 \
  --work-dir work_dirs/pretrained
python tools/reproduce.py run --tables 3 $FROZEN --seeds 6 7 --work-dir work_dirs/pretrained
python tools/reproduce.py run --tables 1a --rows 'fcos/*' $FROZEN --seeds 0 1 2 --work-dir work_dirs/pretrained
python tools/reproduce.py run --tables 1b 1c 2b 2c gflv2-hosts rtmdet-l --rows '[!s]*' --configs \
  fcos/fcos_r50-caffe_fpn_general-dfl_1x_coco fcos/fcos_r50-caffe_fpn_general_1x_coco \
  fcos/fcos_r50-caffe_fpn_gaussian_1x_coco fcos/fcos_r50-caffe_fpn_1x_coco \
  $FROZEN --seeds 0 1 2 --work-dir work_dirs/pretrained_hosts
python tools/reproduce.py run --tables 1b --rows 'ssd/*' --configs ssd/ssd512_gfl_coco ssd/ssd512_gflv2_coco \
  $FROZEN epochs=16 --seeds 0 1 2 --work-dir work_dirs/ssd_long

# Changed settings
run() { python tools/reproduce.py run --seeds 0 1 2 $FROZEN "$@"; }
QUALITY=model.bbox_head.quality JOINT=model.bbox_head.quality.type=mmdet_gfl.JointQuality BOX=model.bbox_head.loss_bbox
UNIFORM="$JOINT $QUALITY.box_weight=uniform"
run epochs=16 --tables 1b --rows 'ssd/*joint*' --work-dir work_dirs/ssd_long_weight4 --cfg-options $JOINT \
  $QUALITY.loss_cls.{type=mmdet_gfl.QualityFocalLoss,beta=2.0,loss_weight=4.0}
run --tables 1b --rows 'retinanet/*fpn_1x*' --work-dir work_dirs/retina_giou --cfg-options \
  $BOX.{_delete_=True,type=GIoULoss,loss_weight=2.0} model.bbox_head.reg_decoded_bbox=True
run --tables 1a --rows '*no-quality*' '*centerness-guided*' --work-dir work_dirs/guided
run --tables 1a --rows '*centerness-guided*' --work-dir work_dirs/guided_uniform --cfg-options $QUALITY.box_weight=uniform
HOSTS="retinanet/retinanet_r50_fpn_gfl_1x_coco foveabox/fovea_r50_fpn_gfl_4xb4-1x_coco"
GFL="fcos/fcos_r50-caffe_fpn_gfl_1x_coco $HOSTS"
run --configs $GFL --work-dir work_dirs/gfl_uniform --cfg-options $UNIFORM
run --configs ${GFL% *} --work-dir work_dirs/gfl_score # again: equal

# Causes of the Gaussian row; with a file of docs/examples, which must be in PYTHONPATH
export PYTHONPATH=docs/examples
imports() { echo custom_imports.imports="[mmdet_gfl,mmdet_gfl.benchmark.frozen,mmdet_gfl.benchmark.hooks,$1]"; }
gaussian() { run --tables 2a --rows 'atss/*gaussian*' --work-dir work_dirs/gaussian$1 --cfg-options "${@:2}"; }
run --tables 2a --rows 'atss/*fpn_1x*' 'atss/*gaussian*' --work-dir work_dirs/gaussian
gaussian _host $(imports gaussian_host_box) model.bbox_head.box.type=mmdet_gfl.GaussianHostBox
gaussian _linear $(imports linear_box) model.bbox_head.box.type=mmdet_gfl.LinearBox
gaussian _weight model.bbox_head.box.loss_bbox.{type=mmdet_gfl.GaussianNLLLoss,loss_weight=0.25}

# A rare class; long: train=2400
run rare=1 --tables 1a --rows 'fcos/*fpn_1x*' 'fcos/*fpn_joint_1x*' --seeds 0 1 2 3 4 --work-dir work_dirs/rare
run rare=1 --tables 1b 3 --rows 'retinanet/*' 'foveabox/*' 'atss/*' 'gfl/*' --configs $GFL --work-dir work_dirs/rare
run rare=1 epochs=12 --tables 1a --rows 'fcos/*fpn_1x*' 'fcos/*fpn_joint_1x*' --configs ${GFL%% *} --work-dir work_dirs/rare_steps
run rare=1 train=2400 --tables 1a 1b 3 --rows '????/*fpn_1x*' '????/*fpn_joint_1x*' 'gfl/*' 'retinanet/*' 'foveabox/*' \
  --configs $GFL --work-dir work_dirs/rare_long
run rare=1 epochs=16 --tables 1b --rows 'ssd/*' --configs ssd/ssd512_gfl_coco --work-dir work_dirs/rare_ssd
run rare=1 epochs=16 train=2400 --tables 1b --rows 'ssd/*' --configs ssd/ssd512_gfl_coco --work-dir work_dirs/rare_long_ssd
rare() { run rare=1 --tables 1a --rows '????/*fpn_joint_1x*' --configs $HOSTS --work-dir work_dirs/rare_$1 --cfg-options "${@:2}"; }
rare uniform $UNIFORM
run rare=1 --configs ${GFL%% *} --work-dir work_dirs/rare_uniform --cfg-options $UNIFORM
run rare=1 --configs ${GFL%% *} --work-dir work_dirs/rare_score # again: equal
run rare=1 --tables 3 --rows 'atss/*joint*' --work-dir work_dirs/rare_uniform_gfl --cfg-options $UNIFORM \
  model.bbox_head.box.type=mmdet_gfl.GeneralBox
run rare=1 train=2400 --configs ${HOSTS%% *} --work-dir work_dirs/rare_long_uniform --cfg-options $UNIFORM
rare quality $JOINT $QUALITY.box_weight=quality
FLOORED="$(imports floored_joint_quality) $QUALITY.type=mmdet_gfl.FlooredJointQuality"
rare floor $FLOORED $QUALITY.floor=0.25
rare warm_up $FLOORED $QUALITY.steps=200

# What was tried against the noise
tried() { python tools/reproduce.py run --tables 3 --rows 'atss/*fpn_1x*' 'gfl/*' --seeds 0 1 2 3 4 5 6 7 --preset mini \
  --work-dir work_dirs/noise_$1 --mini pretrained=1 epochs=4 val=1000 "${@:2}"; }
tried val val=250
tried ema ema=0.01
tried lr lr=0.001
tried long train=2400
git worktree add work_dirs/7a45747 7a45747    # before the rows of a seed started alike
(cd work_dirs/7a45747 && tried own_start)

# From scratch
python tools/reproduce.py run --tables 3 --preset mini --seeds 0 1 2 --work-dir work_dirs/scratch
python tools/reproduce.py run --tables 3 --preset mini --rows 'atss/*fpn_1x*' 'gfl/*' --seeds 3 4 5 6 7 \
  --work-dir work_dirs/scratch
