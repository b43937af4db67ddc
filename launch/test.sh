#!/usr/bin/env bash
# Installs the test extra into .venv, then runs lint, format, types and tests (in two processes), on the CPU.
#
#   bash launch/test.sh                        everything but the tests marked slow
#   bash launch/test.sh tests/test_rvq.py -x   further arguments go to pytest
#
# Every step runs, so that one run shows all that is wrong; the exit code is that of the first that failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export JAX_PLATFORMS=cpu
export PYRIGHT_PYTHON_IGNORE_WARNINGS=1  # no look-up of a newer version
failed=""
code=0

step() {
  local name=$1 status=0
  shift
  echo "== $name"
  "$@" || status=$?
  if ((status)); then
    echo "== $name failed with exit code $status"
    failed+=" $name"
    if ((!code)); then code=$status; fi
  fi
}

echo "== install"
bash launch/install.sh test
step "ruff-check" .venv/bin/python -m ruff check .
step "ruff-format" .venv/bin/python -m ruff format --check .
step "pyright" .venv/bin/python -m pyright
step "pytest" .venv/bin/python -m pytest -n 2 --dist loadfile --durations=10 "$@"
if ((code)); then echo "failed:$failed"; else echo "all steps passed"; fi
exit "$code"
