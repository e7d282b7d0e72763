#!/usr/bin/env bash
# Tests in several processes through torchrun, one per GPU, or on the CPU where there is no GPU:
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [ARGUMENTS OF tools/test.py]
#
# It reads NNODES, NODE_RANK, MASTER_ADDR, PORT and PYTHON, see tools/dist_train.sh.
source "$(dirname "${BASH_SOURCE[0]}")/_launchers.sh"

need 3 "$@"
with_torchrun "$3" test.py "$1" "$2" --launcher pytorch "${@:4}"
