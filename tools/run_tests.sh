#!/usr/bin/env bash
# Sets up the environment (see tools/setup_env.sh, also for the variables it heeds) and runs the tests in it:
#
#   bash tools/run_tests.sh [ARGUMENTS OF PYTEST]      paths are relative to the project
set -euo pipefail
unset CDPATH

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(bash tools/setup_env.sh)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # the tests' tensors are small: more threads only wait for each other
exec "$python" -m pytest "$@"
