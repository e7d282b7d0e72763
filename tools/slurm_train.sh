#!/usr/bin/env bash
# Trains as a Slurm job, one task per GPU:
#
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [ARGUMENTS OF tools/train.py]
#
# Environment variables that it reads:
#
#   GPUS=8                    how many in all
#   GPUS_PER_NODE=            how many on a machine; default: all of them, 8 at most
#   CPUS_PER_TASK=5           cores per GPU, for the processes that read the data
#   SRUN_ARGS=                more options of srun, separated by spaces, e.g. '--time=12:00:00 --quotatype=auto'
#   MASTER_PORT=29500         a free port of the first machine
#   PYTHON=python
source "$(dirname "${BASH_SOURCE[0]}")/_launchers.sh"

need 4 "$@"
with_srun "$1" "$2" train.py "$3" --work-dir="$4" --launcher=slurm "${@:5}"
