#!/usr/bin/env bash
# What launch/tpu_pod.sh starts on each TPU VM of a slice, in the folder of the checkout.
#
#   bash launch/tpu_worker.sh clean                               free the TPU of what still holds it
#   bash launch/tpu_worker.sh run --attempt ATTEMPT -- COMMAND    clean, start the command, show its output, end as it does
#
#   --dry-run   print the commands, run none
#
# The command does not depend on the connection: it goes on when that breaks, and a second `run` of the same ATTEMPT only
# shows it again. (gcloud starts what it was told again when a connection breaks.) Output is in runs/worker/ATTEMPT.log.
#
# A process of an earlier run that holds the TPU gets SIGTERM, on which a training saves, and after 120 s SIGKILL.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

as_root() {
  if ((EUID)); then sudo -n "$@"; else "$@"; fi
}

# Prints the processes that have a file of the TPU open, one a line. What ends meanwhile is no error.
holders() {
  { as_root find /proc/[0-9]*/fd '(' -lname '*/dev/accel*' -o -lname '*/dev/vfio/[0-9]*' ')' 2>/dev/null || true; } |
    cut -d/ -f3 | sort -un
}

# end_holders SIGNAL LOOKS succeeds once nobody holds the TPU, for which it looks every 5 seconds.
end_holders() {
  local left=$2 pids
  mapfile -t pids < <(holders)
  if ((${#pids[@]})); then execute as_root kill "-$1" "${pids[@]}" || true; fi
  while ((${#pids[@]})); do
    ((left-- > 0)) || return 1
    sleep 5
    mapfile -t pids < <(holders)
  done
}

clean() {
  show find '/proc/[0-9]*/fd' -lname '*/dev/accel*' -o -lname '*/dev/vfio/[0-9]*'
  if [[ -z $dry_run ]] && ! end_holders TERM 24 && ! end_holders KILL 6; then
    echo "error: the TPU of $(hostname) is still held by: $(holders | xargs); delete the slice and create it again" >&2
    exit 1
  fi
  execute as_root rm -f /tmp/libtpu_lockfile
}

# Starts the command in a session of its own; its code is kept in ATTEMPT.code.
start() {
  clean
  show python launch/worker.py "${command[@]}"
  if [[ -n $dry_run ]]; then return; fi
  mkdir -p runs/worker
  : >"$file.log"
  # shellcheck disable=SC2016  # expanded by the inner bash
  setsid bash -c 'file=$1; shift; code=0; python launch/worker.py "$@" || code=$?; echo "$code" >"$file.code"' \
    worker "$file" "${command[@]}" </dev/null >>"$file.log" 2>&1 &
  echo $! >"$file.pid"
}

run() {
  [[ -n $attempt ]] || fail "option --attempt is missing: a name for this start of the command"
  ((${#command[@]})) || fail "'run' needs a command after --"
  if [[ ! -e $file.pid ]]; then start; fi
  if [[ -n $dry_run ]]; then return; fi
  tail --follow --lines=+1 --pid="$(<"$file.pid")" "$file.log"
  if [[ ! -e $file.code ]]; then echo "error: attempt $attempt was killed on $(hostname)" >&2 && exit 1; fi
  exit "$(<"$file.code")"
}

attempt=""
parse_options action "--attempt" "--dry-run" "$@"
file="runs/worker/$attempt"
case $word in
  clean | run) "$word" ;;
  "") fail "which action? one of: clean run" ;;
  *) fail "unknown action '$word'; known: clean run" ;;
esac
