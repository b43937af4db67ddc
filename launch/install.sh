#!/usr/bin/env bash
# Makes .venv with the pinned packages, and the given extras of pyproject.toml.
#
#   bash launch/install.sh                    what training needs
#   bash launch/install.sh quickstart report metrics  what launch/quickstart.sh needs
#   bash launch/install.sh torch              PyTorch: certificates and .pth files of exports, and benchmarks against it
#   bash launch/install.sh onnx               exports to ONNX (with torch)
#   bash launch/install.sh test               lint, types and tests (with quickstart, torch and onnx)
#   bash launch/install.sh dev                test, and the commit hooks
#   bash launch/install.sh voices metrics     neural voices for the corpora, and Whisper and PESQ for the evaluations
#   bash launch/install.sh judges             metrics, and further models that judge voices and quality (with torch)
#   bash launch/install.sh report demo        the pages of python -m uniaudio_jax.report and uniaudio_jax.demo
#   bash launch/install.sh plan               the TPU compiler, for python -m uniaudio_jax.planner; or plan_gpu
#   bash launch/install.sh buckets            runs and tokens in gs:// and s3://
#   bash launch/install.sh wandb              a sink for metrics; or aim, or trackio
#   bash launch/install.sh beam               Apache Beam for the builder (brings its own, older protobuf and pyarrow)
#   bash launch/install.sh tpu | cuda         drivers of an accelerator
#
# PYTHON=/path/to/python picks the interpreter. pip's own settings count: with PIP_EXTRA_INDEX_URL naming an
# index that has CPU builds of PyTorch, a small CPU build is taken instead of a CUDA build of several GB.
# A second run with the same pins does nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

# Succeeds for an interpreter that starts and is Python 3.11 or newer.
is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Prints the interpreter to use. 3.11 and 3.12 come first: every pinned package has a wheel for them.
find_python() {
  local candidate seen="" without_venv="" candidates=(python3.11 python3.12 python3.13 python3)
  if [[ -n ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    seen+=" $candidate"
    is_new_enough "$candidate" || continue
    if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
    without_venv+=" $candidate"
  done
  [[ -z $without_venv ]] || fail "$(tr ' ' '/' <<<"${without_venv# }") has no module venv or ensurepip;" \
    "install it (Debian and Ubuntu: apt-get install python3-venv) and run this again"
  fail "no Python 3.11 or newer among:$seen; install one, or name it: PYTHON=/path/to/python bash launch/install.sh"
}

# Makes .venv unless there is one whose pip runs.
make_environment() {
  if .venv/bin/python -c 'import pip' >/dev/null 2>&1; then return; fi
  local python
  python="$(find_python)"
  echo "making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
}

# Prints `name==version` as pyproject.toml or requirements.txt has it.
pinned() {
  grep -hoE "(^|\")$1==[0-9.]+" pyproject.toml requirements.txt | head -n 1 | tr -d '"'
}

pip_install() {
  local bar=off
  if [[ -t 1 ]]; then bar=on; fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "--progress-bar=$bar" --use-pep517 \
    --log .venv/install.log "$@" ||
    fail "pip could not install: $*; its message is above, all of its output in .venv/install.log"
}

# Installs the packages whose declared needs are more than we use.
install_without_needs() {
  local version
  version="$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  case $version in
    3.11 | 3.12) ;;
    *) command -v c++ >/dev/null || fail "tinysoundfont has no wheel for Python $version and is compiled, but there is" \
      "no C++ compiler; install one and Python's headers (Debian: apt-get install g++ python3-dev), or use Python 3.12" ;;
  esac
  pip_install --no-deps -r launch/no_deps.txt
}

main() {
  local extra with_torch="" with_no_deps="" with_beam="" with_kokoro="" with_judges="" extras="" stamp pins
  for extra in "$@"; do
    case $extra in
      test | dev) with_torch=yes with_no_deps=yes ;;
      torch | onnx) with_torch=yes ;;
      quickstart) with_no_deps=yes ;;
      beam) with_beam=yes with_no_deps=yes; continue ;;
      voices) with_kokoro=yes ;;
      judges) with_torch=yes with_judges=yes ;;
      metrics | report | demo | buckets | plan | plan_gpu | wandb | aim | trackio | tpu | cuda) ;;
      *) fail "unknown extra '$extra'; known: quickstart torch onnx test dev voices metrics judges report demo buckets plan plan_gpu wandb aim trackio beam tpu cuda" ;;
    esac
    extras+="${extras:+,}$extra"
  done
  if [[ -n $with_beam && -z $extras ]]; then extras=quickstart; fi

  # The checkout's path is part of the stamp: an environment that was moved or copied points at another checkout.
  pins="$({ pwd; cat requirements.txt pyproject.toml launch/*.txt; } | sha256sum | cut -c1-16)"
  stamp=".venv/.installed-$pins${extras:+-$extras}${with_beam:+-beam}"
  if [[ -e $stamp ]] && .venv/bin/python -c '' >/dev/null 2>&1; then
    echo ".venv is up to date (${extras:-no extras})"
    return
  fi

  make_environment
  find .venv -maxdepth 1 -name '.installed-*' ! -name ".installed-$pins*" -delete
  # The pinned build tools come first, and packages are built without isolation: otherwise pip downloads build tools
  # for each source package, and hides the error when it cannot. numpy and cython are what pesq is compiled with.
  pip_install "$(pinned setuptools)" "$(pinned numpy)" "$(pinned cython)"
  if [[ -n $with_torch ]]; then
    echo "installing PyTorch: a CPU build where pip's indexes have one, else a CUDA build of several GB"
    pip_install "$(pinned torch)"
  fi
  echo "installing uniaudio_jax${extras:+[$extras]} and its pinned packages (a few minutes the first time)"
  pip_install --no-build-isolation -e ".${extras:+[$extras]}"
  if [[ -n $with_no_deps ]]; then install_without_needs; fi
  if [[ -n $with_kokoro ]]; then pip_install --no-deps -r launch/kokoro.txt; fi
  if [[ -n $with_judges ]]; then pip_install --no-deps -r launch/judges.txt; fi
  if [[ -n $with_beam ]]; then pip_install -r launch/beam.txt; fi
  touch "$stamp"
  echo "installed into .venv: $(.venv/bin/python --version), ${extras:-no extras}"
}

main "$@"
