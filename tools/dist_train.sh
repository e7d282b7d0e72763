#!/usr/bin/env bash
# Trains in several processes through torchrun, one per GPU, or on the CPU where there is no GPU:
#
#   bash tools/dist_train.sh CONFIG GPUS [ARGUMENTS OF tools/train.py]
#
# On several machines it is started on each with the same arguments. Environment variables that it reads:
#
#   NNODES=1  NODE_RANK=0     how many machines there are, and the number of this one
#   MASTER_ADDR=127.0.0.1     address of the machine with NODE_RANK=0
#   PORT=29500                a free port of it; a second training on the same machine needs another one
#   PYTHON=python
source "$(dirname "${BASH_SOURCE[0]}")/_launchers.sh"

need 2 "$@"
with_torchrun "$2" train.py "$1" --launcher pytorch "${@:3}"
