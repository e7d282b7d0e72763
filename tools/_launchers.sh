# What dist_*.sh and slurm_*.sh share; they source it.
set -euo pipefail
unset CDPATH

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly TOOLS PYTHON=${PYTHON:-python}
export PYTHONPATH="${TOOLS%/*}${PYTHONPATH:+:$PYTHONPATH}"

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# Prints the comment at the top of the script and ends it, unless it was given at least $1 arguments: need 2 "$@"
need() {
  local least=$1
  shift
  if (($# < least)) || [[ $1 == -h || $1 == --help ]]; then
    awk 'NR > 1 && /^#/ { sub(/^# ?/, ""); print; next } NR > 1 { exit }' "$0" >&2
    exit 2
  fi
}

# Ends the script unless $2, which is called $1, is a number above 0.
need_count() {
  [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 must be a number of processes, from 1 up, and is '$2'"
}

# with_torchrun PROCESSES TOOL ARGUMENTS...: the tool in processes of this machine, which may be one node of several.
with_torchrun() {
  local count=$1 tool=$2
  shift 2
  need_count GPUS "$count"
  exec "$PYTHON" -m torch.distributed.run --nproc_per_node="$count" --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$TOOLS/$tool" "$@"
}

# with_srun PARTITION JOB_NAME TOOL ARGUMENTS...: the tool in the tasks of a Slurm job.
with_srun() {
  local partition=$1 job=$2 tool=$3 gpus=${GPUS:-8} per_node extra
  shift 3
  need_count GPUS "$gpus"
  per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
  need_count GPUS_PER_NODE "$per_node"
  command -v srun >/dev/null || fail "there is no srun here: this is not a Slurm cluster; tools/dist_${tool%.py}.sh needs none"
  read -ra extra <<<"${SRUN_ARGS:-}"
  exec srun -p "$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${extra[@]+"${extra[@]}"} \
    "$PYTHON" -u "$TOOLS/$tool" "$@"
}
