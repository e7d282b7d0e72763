#!/usr/bin/env bash
# Sets up the environment (see tools/setup_env.sh, also for the variables it reads) and runs the tests in it:
#
#   bash tools/run_tests.sh [ARGUMENTS OF PYTEST]      paths are relative to the project
#
# All tests, or those of a folder or mark, share the cores: one process per core, at most 8, of one thread. Tests that
# are selected by file or name run in one process, which starts sooner. `-n NUMBER` decides otherwise.
set -euo pipefail
unset CDPATH

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(bash tools/setup_env.sh)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # the tests' tensors are small: more threads only wait for each other
processes=auto
for argument; do
  case $argument in
    -k* | *.py | *.py::* | --lf | --last-failed | --pdb | --collect-only) processes=0 ;;
  esac
done
# A file's tests stay together, since they share what its fixtures train.
exec "$python" -m pytest -n "$processes" --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"
