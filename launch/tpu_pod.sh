#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it, copies this checkout to every worker, installs, runs on all of them.
#
#   bash launch/tpu_pod.sh all --name uni --zone us-west4-a --queued --spot -- \
#     python -m uniaudio_jax.train configs/paper.py --out /mnt/share/run
#
# Or one by one: create, copy, install, run (with `-- COMMAND`), status, delete. `all` is create, copy, install, run.
#
#   --name NAME       of the slice                      (needed)
#   --zone ZONE       such as us-west4-a                (needed)
#   --project ID      default: gcloud's own setting
#   --type TYPE       default v5litepod-256
#   --version NAME    TPU software version, default v2-alpha-tpuv5-lite
#   --spot            cheaper, but may be preempted
#   --queued          request a queued resource and wait until it is active; status and delete need the option too
#   --dry-run         print the commands, run none
#
# What is committed is copied (git archive HEAD), not the changes beside it. Every worker runs the same command from
# the copy, with .venv's python first in PATH. The workers have no disk in common: RUN and the data must lie on a share
# that all of them mount. The command ends with this script; `run` again continues from the last checkpoint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

name="" zone="" project="" type="v5litepod-256" version="v2-alpha-tpuv5-lite" spot="" queued=""

check() {
  case $action in
    create | copy | install | status | delete)
      ((${#command[@]} == 0)) || fail "'$action' takes no command after --; use run or all" ;;
    run | all)
      ((${#command[@]})) ||
        fail "'$action' needs a command after --, such as: -- python -m uniaudio_jax.train CONFIG --out RUN" ;;
    "") fail "which action? one of: create copy install run status delete all" ;;
    *) fail "unknown action '$action'; known: create copy install run status delete all" ;;
  esac
  [[ -n $name ]] || fail "option --name is missing: the name of the slice"
  [[ -n $zone ]] || fail "option --zone is missing: where the slice is, such as us-west4-a"
  [[ -n $dry_run ]] || command -v gcloud >/dev/null ||
    fail "gcloud is not installed; install the Google Cloud CLI, or see the commands with --dry-run"
}

# Runs gcloud compute tpus GROUP VERB NAME …, in the zone and project of the slice.
tpus() {
  execute gcloud compute tpus "$@" "--zone=$zone" ${project:+"--project=$project"}
}

on_all_workers() {
  tpus tpu-vm ssh "$name" --worker=all "--command=$1"
}

create() {
  if [[ -z $queued ]]; then
    tpus tpu-vm create "$name" "--accelerator-type=$type" "--version=$version" ${spot:+--spot}
    return
  fi
  tpus queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type" "--runtime-version=$version" \
    ${spot:+--spot}
  wait_until_active
}

# Asks each half minute until the queued resource is active; fails when it never will be.
wait_until_active() {
  local state ask=(gcloud compute tpus queued-resources describe "$name" "--format=value(state.state)" "--zone=$zone")
  if [[ -n $project ]]; then ask+=("--project=$project"); fi
  show "${ask[@]}"
  while [[ -z $dry_run ]]; do
    state="$("${ask[@]}")"
    echo "$name: $state"
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPENDED | SUSPENDING) fail "queued resource $name is $state; see status, then delete it" ;;
    esac
    sleep 30
  done
}

copy() {
  local archive="$scratch/uniaudio_jax.tar.gz"
  if [[ -n $(git status --porcelain) ]]; then
    echo "warning: changes that are not committed are not copied" >&2
  fi
  execute git archive --format=tar.gz "--output=$archive" HEAD
  tpus tpu-vm scp "$archive" "$name:uniaudio_jax.tar.gz" --worker=all
  on_all_workers "mkdir -p uniaudio_jax && tar -xzf uniaudio_jax.tar.gz -C uniaudio_jax"
}

# The TPU images carry Python 3.10: a newer one is installed beside it.
install() {
  local packages="sudo apt-get update && sudo apt-get install -y python3.11-venv python3.11-dev"
  on_all_workers "command -v python3.11 >/dev/null || ($packages)"
  on_all_workers "cd uniaudio_jax && bash launch/install.sh tpu"
}

# A TPU VM finds the other workers through the metadata server, which this variable tells the trainer to ask.
run() {
  local words
  printf -v words ' %q' "${command[@]}"
  on_all_workers "cd uniaudio_jax && export PATH=\"\$PWD/.venv/bin:\$PATH\" UNIAUDIO_DISTRIBUTED=auto &&$words"
}

status() {
  if [[ -n $queued ]]; then tpus queued-resources describe "$name"; else tpus tpu-vm describe "$name"; fi
}

delete() {
  if [[ -n $queued ]]; then
    tpus queued-resources delete "$name" --force --quiet
  else
    tpus tpu-vm delete "$name" --quiet
  fi
}

all() {
  create
  copy
  install
  run
}

parse_options action "--name --zone --project --type --version" "--spot --queued --dry-run" "$@"
action=$word
check
scratch="$(mktemp -d)"
trap 'rm -rf -- "$scratch"' EXIT
"$action"
