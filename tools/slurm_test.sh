#!/usr/bin/env bash
# Tests as a Slurm job, one task per GPU:
#
#   bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [ARGUMENTS OF tools/test.py]
#
# It reads GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, MASTER_PORT and PYTHON, see tools/slurm_train.sh.
source "$(dirname "${BASH_SOURCE[0]}")/_launchers.sh"

need 4 "$@"
with_srun "$1" "$2" test.py "$3" "$4" --launcher=slurm "${@:5}"
