#!/usr/bin/env bash
# Creates or reuses the project's virtual environment and prints the path of its Python, alone, on standard output:
#
#   PY=$(bash tools/setup_env.sh)
#
# Progress and errors go to standard error. A run that was stopped resumes; one with nothing to do takes
# less than a second. Environment variables that it reads:
#
#   VENV=DIR          the environment, relative to the project; default .venv. An environment that exists is used as it
#                     is, with the torch it holds.
#   PYTHON=COMMAND    the Python to make it from; default: the active virtual or conda environment, then python3.11,
#                     python3, python. The first that has torch is preferred, and its torch is used.
#   TORCH_INDEX_URL=  where pip takes torch from, e.g. https://download.pytorch.org/whl/cu130; default: a CPU build.
#   MMCV=lite|full    mmcv without compiled operators (seconds), or with (built from source once, which needs a C++
#                     compiler and minutes; the wheel is kept). Default: what is there, otherwise lite.
#   CONSTRAINTS=FILE  the versions to install; default constraints.txt, the lowest are in constraints-lowest.txt.
#   MMDET_GFL_CACHE=  where built wheels are kept; default ~/.cache/mmdet_gfl (or below XDG_CACHE_HOME).
#   FORCE_CUDA, MAX_JOBS    go to mmcv's build; pip's own variables (PIP_INDEX_URL, ...) go to pip.
set -euo pipefail
unset CDPATH
shopt -u failglob nullglob

readonly CPU_INDEX='https://download.pytorch.org/whl/cpu'
readonly LOWEST_TORCH='2.3'   # that works with numpy 2

exists() { [[ -e $1 ]]; } # takes a pattern: the shell passes the files it matches, or itself
say() { printf '[%3d s] %s\n' "$SECONDS" "$*" >&2; }
fail() {
  printf 'error: %s\n' "$@" >&2
  exit 1
}

# --- Python ----------------------------------------------------------------------------------------------------------

# Prints the version of Python $1, e.g. 3.11.7; fails if it does not run.
python_version() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null; }

# Prints the version of the torch that Python $1 imports; fails if it imports none.
torch_version() {
  "$1" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' 2>/dev/null || return 1
  "$1" -c 'import torch; print(torch.__version__)' 2>/dev/null
}

# Whether version $1 is at least $2; the first two numbers count.
at_least() {
  local have_major have_minor need_major need_minor
  IFS=. read -r have_major have_minor _ <<<"$1"
  IFS=. read -r need_major need_minor <<<"$2"
  ((have_major > need_major || (have_major == need_major && have_minor >= need_minor)))
}

# Sets BASE to the Python to make the environment from, and TORCH_FROM to the one whose torch is to be used; each may
# stay empty.
find_base() {
  local candidates=("${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" "${CONDA_PREFIX:+$CONDA_PREFIX/bin/python}"
    "python$LOWEST_PYTHON" python3 python)
  local candidate version torch
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  BASE='' TORCH_FROM=''
  for candidate in "${candidates[@]}"; do
    [[ -n $candidate && $candidate != "$PY" ]] || continue
    version=$(python_version "$candidate") || continue
    if ! at_least "$version" "$LOWEST_PYTHON"; then
      say "$candidate is Python $version: too old, $LOWEST_PYTHON is needed"
      continue
    fi
    : "${BASE:=$candidate}"
    torch=$(torch_version "$candidate") || continue
    if at_least "$torch" "$LOWEST_TORCH"; then
      BASE=$candidate TORCH_FROM=$candidate
      return
    fi
    say "$candidate has torch $torch: too old for numpy 2, which needs torch $LOWEST_TORCH; it is not used"
  done
}

# Makes $VENV hold a Python with pip, and sets SITE to its package folder. What works there already is left alone.
ensure_venv() {
  local version
  python_version "$PY" >/dev/null || make_venv
  version=$(python_version "$PY")
  at_least "$version" "$LOWEST_PYTHON" || fail "$VENV has Python $version, and $LOWEST_PYTHON is needed. Remove it, or \
name another folder: VENV=DIR"
  [[ $version == "$LOWEST_PYTHON".* ]] || say "this is Python $version; tested is $LOWEST_PYTHON"
  SITE=$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  [[ ! -f $LOG ]] || drop_fragments
  : >"$LOG"
  exists "$SITE"/pip-*.dist-info/RECORD || "$PY" -m ensurepip --upgrade --default-pip >>"$LOG" 2>&1 ||
    explain 'pip could not be installed'
}

make_venv() {
  find_base
  local python=python$LOWEST_PYTHON
  [[ -n $BASE ]] || fail "no Python $LOWEST_PYTHON found${PYTHON:+ (PYTHON=$PYTHON does not do)}. Install it, e.g. with \
'sudo apt-get install $python $python-venv', 'uv python install $LOWEST_PYTHON' or 'conda create -n gfl \
python=$LOWEST_PYTHON', or name one: PYTHON=/path/to/$python"
  "$BASE" -c 'import ensurepip, venv' 2>/dev/null || fail "$BASE cannot make virtual environments: its module venv or \
ensurepip is missing. On Debian and Ubuntu: sudo apt-get install $python-venv"
  [[ ! -e $VENV || -f $VENV/pyvenv.cfg || -z $(ls -A "$VENV") ]] ||
    fail "$VENV is there and is not a virtual environment; name another folder: VENV=DIR"
  say "making $VENV with Python $(python_version "$BASE")"
  "$BASE" -m venv --clear --without-pip "$VENV" || fail "could not make $VENV; the reason stands above"
}

# pip writes RECORD last. A package without it was being installed when a run was stopped: make pip install it again.
drop_fragments() {
  local info
  for info in "$SITE"/*.dist-info; do
    [[ ! -d $info || -f $info/RECORD ]] || rm -rf "$info"
  done
}

# --- Packages --------------------------------------------------------------------------------------------------------

# Runs pip with the given arguments; its output goes to the log.
pip() { "$PY" -m pip "$@" >>"$LOG" 2>&1; }

# Prints the version that the constraints pin for $1.
pinned() { sed -n "s/^$1==\([^ #]*\).*/\1/p" "$CONSTRAINTS"; }

# Whether the log of this run holds the extended regular expression $1.
logged() { grep -qE "$1" "$LOG"; }

# Whether less than 100 MB are free where $1 is.
is_full() { (($(df -Pk "$1" | awk 'NR == 2 {print $4}') < 100000)); }

# Ends the run with $1, pip's last lines and the way out.
explain() {
  local way_out="the whole log is $LOG" tmp=${TMPDIR:-/tmp}
  tail -n 4 "$LOG" | cut -c 1-200 >&2
  if logged 'No space left on device' || is_full "$VENV" || is_full "$tmp"; then
    way_out="the disk is full. $VENV needs about 2 GB and $tmp 1 GB; VENV=DIR and TMPDIR=DIR name other places"
  elif logged 'Max retries|New(Connection|Resolution)Error|name resolution|ProxyError|timed out|unreachable'; then
    way_out='pip does not reach its index. Behind a proxy set HTTPS_PROXY, with a mirror PIP_INDEX_URL'
  fi
  fail "$1: $way_out"
}

# Makes torch importable: the one that is there, that of TORCH_FROM, or the pinned one.
install_torch() {
  local version pin patience
  if version=$(torch_version "$PY"); then
    say "torch $version is there and is used"
    return
  fi
  [[ -n ${BASE:-} ]] || find_base
  if [[ -n $TORCH_FROM ]] && link_torch; then
    say "torch $(torch_version "$PY") of $TORCH_FROM is used"
    return
  fi
  pin="torch==$(pinned torch)"
  patience="to download, minutes on a slow network (progress: tail -f '$LOG')" # pip's own words go to the log
  if [[ -n ${TORCH_INDEX_URL:-} ]]; then
    say "installing $pin from $TORCH_INDEX_URL, a CPU build 190 MB and one for CUDA with its libraries gigabytes $patience"
    pip install --index-url "$TORCH_INDEX_URL" "$pin" || explain "$pin could not be installed from $TORCH_INDEX_URL"
  elif [[ $(uname -s) != Linux ]]; then
    say "installing $pin, about 100 MB $patience"
    pip install "$pin" || explain "$pin could not be installed"
  else
    # Only Linux has CPU builds under a version of their own; they stand on PyTorch's index and on some mirrors.
    say "installing $pin+cpu, 190 MB $patience. For a GPU: TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130"
    # (The second message where a constraint of pip's own configuration names torch.)
    pip install "$pin+cpu" ||
      { logged 'No matching distribution|ResolutionImpossible' && pip install "$pin+cpu" --extra-index-url "$CPU_INDEX"; } ||
      explain "the CPU build of $pin could not be installed (TORCH_INDEX_URL can name another index)"
  fi
}

# Puts the package folders of TORCH_FROM at the end of the environment's path; what is installed here comes first.
# (--system-site-packages would not do: from within a virtual environment it leads past that to the system's Python.)
link_torch() {
  local link=$SITE/mmdet_gfl_torch.pth
  "$TORCH_FROM" -c 'import os, sys, torch
folders = [folder for folder in sys.path if os.path.basename(folder) in ("site-packages", "dist-packages")]
print(*dict.fromkeys([os.path.dirname(os.path.dirname(torch.__file__)), *folders]), sep="\n")' >"$link"
  torch_version "$PY" >/dev/null && return
  rm -f "$link"
  say "torch of $TORCH_FROM does not import in $VENV ($(python_version "$PY")); it is not used"
  return 1
}

# Whether mmcv is there with operators that load, in a version that fits. (The packages it imports may not be there yet.)
has_compiled_mmcv() {
  "$PY" - >>"$LOG" 2>&1 <<'PYTHON'
import glob
import importlib.metadata
import importlib.util
import sys

(folder,) = importlib.util.find_spec('mmcv').submodule_search_locations
(file,) = glob.glob(glob.escape(folder) + '/_ext.*')
import torch  # noqa: E402, F401  the operators link to it

spec = importlib.util.spec_from_file_location('mmcv._ext', file)
spec.loader.exec_module(importlib.util.module_from_spec(spec))
major, minor = importlib.metadata.version('mmcv').split('.')[:2]
sys.exit(major != '2' or int(minor) >= 2)
PYTHON
}

# mmcv and mmcv-lite fill the same folder, so whatever of them is installed here goes before the other one comes.
remove_mmcv() {
  if exists "$SITE"/mmcv-[0-9]*.dist-info || exists "$SITE"/mmcv_lite-*.dist-info; then
    pip uninstall -y mmcv mmcv-lite || explain 'mmcv could not be removed'
  fi
}

install_lite_mmcv() {
  ! exists "$SITE"/mmcv-[0-9]*.dist-info || remove_mmcv
  say "installing mmcv-lite $(pinned mmcv-lite)"
  pip install -c "$CONSTRAINTS" mmcv-lite || explain 'mmcv-lite could not be installed'
}

install_full_mmcv() {
  if has_compiled_mmcv; then
    say 'compiled mmcv is there and is used'
    return
  fi
  local kept
  kept=$WHEELS/$(wheel_key)
  mkdir -p "$kept"
  exec 8<"$WHEELS"
  lock 8 'another build of mmcv'
  exists "$kept"/*.whl || build_mmcv "$kept"
  exec 8<&-
  say "installing" "$kept"/*.whl
  remove_mmcv
  pip install --no-deps "$kept"/*.whl || explain 'the wheel of mmcv could not be installed'
  has_compiled_mmcv || explain "compiled mmcv does not load (rm -r '$kept' makes the next run build it anew)"
}

# Prints what a compiled mmcv depends on, as a folder name.
wheel_key() {
  MMCV_VERSION=$(pinned mmcv) "$PY" -c 'import os, sys, sysconfig, torch
cuda = torch.cuda.is_available() or os.getenv("FORCE_CUDA") == "1"  # what setup.py of mmcv looks at
print("mmcv-{}-cp{}{}-torch{}-{}-{}".format(os.environ["MMCV_VERSION"], *sys.version_info[:2], torch.__version__,
      sysconfig.get_platform(), "cuda" if cuda else "cpu"))'
}

# Builds mmcv's wheel and moves it into the folder $1 when it is whole.
build_mmcv() {
  local pin headers
  pin="mmcv==$(pinned mmcv)"
  command -v "${CXX:-c++}" >/dev/null || fail "MMCV=full needs a C++ compiler, and there is no '${CXX:-c++}' here: sudo \
apt-get install g++, or name one with CXX=, or leave MMCV=full out"
  headers=$("$PY" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  [[ -f $headers/Python.h ]] || fail "MMCV=full needs Python's headers, and there is no $headers/Python.h: sudo apt-get \
install python$LOWEST_PYTHON-dev, or leave MMCV=full out"
  PATH=$VENV/bin:$PATH
  command -v ninja >/dev/null || pip install -c "$CONSTRAINTS" --ignore-installed ninja ||
    explain 'ninja could not be installed'
  rm -rf "$1"/building.* # of a run that was killed; the lock says that nobody builds there now
  BUILDING=$(mktemp -d "$1/building.XXXXXX")
  trap 'rm -rf "$BUILDING"' EXIT
  say "building $pin with its operators, about ten minutes on 2 cores (progress: tail -f '$LOG')"
  # pip would keep the wheel by the address of its source alone, whatever torch it was built for: hence --no-cache-dir.
  MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)} pip wheel --verbose --no-cache-dir --no-deps \
    --no-build-isolation --no-binary mmcv -w "$BUILDING" "$pin" || explain "$pin could not be built"
  mv "$BUILDING"/*.whl "$1"
}

# --- The whole -------------------------------------------------------------------------------------------------------

# Waits until descriptor $1, which is open on a folder, is locked for this run; $2 says what it waits for.
lock() {
  command -v flock >/dev/null || return 0
  flock -n "$1" && return
  say "waiting for $2 to end"
  flock "$1"
}

# Prints what the environment is made from, for mode $1: the stamp of an environment that is complete.
fingerprint() {
  "$PY" - "$1" "$CONSTRAINTS" 2>/dev/null <<'PYTHON'
import hashlib
import importlib.metadata
import pathlib
import sys

made_from = [pathlib.Path(name).read_text() for name in (sys.argv[2], 'setup.cfg', 'pyproject.toml')]
made_from += [sys.version, sys.prefix, str(pathlib.Path.cwd())]
made_from += [dist.version for dist in importlib.metadata.distributions(name='torch')]
print(sys.argv[1], hashlib.sha256('\0'.join(made_from).encode()).hexdigest())
PYTHON
}

set_up() {
  rm -f "$STAMP"
  ensure_venv
  say "setting up $VENV (log: $LOG)"
  pip install -c "$CONSTRAINTS" setuptools wheel || explain 'setuptools could not be installed'
  install_torch
  [[ -n ${MMCV:-} ]] || ! has_compiled_mmcv || MODE=full
  "install_${MODE}_mmcv"
  say 'installing MMDetection and the tools for tests'
  pip install -c "$CONSTRAINTS" --no-build-isolation -e '.[tests]' mmdet mmengine pycocotools ||
    explain 'the packages could not be installed'
  "$PY" -c 'import numpy, torch; torch.from_numpy(numpy.zeros(1))' >>"$LOG" 2>&1 || explain 'torch and numpy do not fit'
  # MMDetection's own tools import it before they could import this package.
  "$PY" -m mmdet_gfl stand-in install >>"$LOG" 2>&1 || explain 'the stand-in for the operators of mmcv could not be placed'
  fingerprint "$MODE" >"$STAMP.new"
  mv "$STAMP.new" "$STAMP"
  say "$VENV is ready"
}

# Refuses the copy that a wheel brings along: what the environment is made from is in a checkout alone.
check_checkout() {
  local file
  for file in "$CONSTRAINTS" setup.cfg pyproject.toml; do
    [[ -f $file ]] || fail "$PWD has no $file, so it is not a checkout of mmdet_gfl: clone it and run this there. An \
installed package needs no set-up; 'python -m mmdet_gfl' says what its environment lacks"
  done
}

main() {
  case ${1:-} in
    '') ;;
    -h | --help) sed -n '2,/^set /{s/^# \{0,1\}//;/^set /!p;}' "$SCRIPT" && exit ;;
    *) fail "setup_env.sh takes no arguments (got: $*); --help lists the environment variables" ;;
  esac
  [[ ${MMCV:-lite} =~ ^(lite|full)$ ]] || fail "MMCV=$MMCV: it can be lite or full"
  check_checkout
  LOWEST_PYTHON=$(sed -n 's/^# lowest Python: //p' "$CONSTRAINTS")
  exec 9<.
  lock 9 'another set-up of this project'
  local stamped=''
  [[ ! -f $STAMP ]] || read -r stamped _ <"$STAMP"
  MODE=${MMCV:-${stamped:-lite}}
  [[ $stamped == "$MODE" && $(fingerprint "$MODE") == "$(<"$STAMP")" ]] || set_up
  echo "$PY"
}

SCRIPT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)/setup_env.sh
[[ ${PYTHON:-} != */* || $PYTHON == /* ]] || PYTHON=$PWD/$PYTHON
cd "${SCRIPT%/tools/*}"
[[ ${VENV:=.venv} == /* ]] || VENV=$PWD/$VENV
PY=$VENV/bin/python
CONSTRAINTS=${CONSTRAINTS:-constraints.txt}
STAMP=$VENV/.set-up
LOG=$VENV/set-up.log
WHEELS=${MMDET_GFL_CACHE:-${XDG_CACHE_HOME:-${HOME:-$PWD}/.cache}/mmdet_gfl}/wheels
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
main "$@"
