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
#   --spot            cheaper, may be taken away
#   --queued          ask by a queued resource, and wait until it is active; give it to status and delete too
#   --dry-run         print the commands, run none
#
# What is committed is copied (git archive HEAD), not the changes beside it. Every worker runs the same command from
# the copy, with .venv's python first in PATH. They share no disk: RUN and the data must lie on a
# share that all of them mount. The command runs as long as this script: should either stop, `run` again goes on from the checkpoint.
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

name="" zone="" project="" type="v5litepod-256" version="v2-alpha-tpuv5-lite" spot="" queued="" dry_run=""
action="" command=()

fail() {
  echo "error: $*" >&2
  exit 2
}

parse() {
  while (($#)); do
    case $1 in
      --name | --zone | --project | --type | --version)
        if (($# < 2)) || [[ $2 == -* ]]; then fail "option $1 needs a value"; fi
        printf -v "${1#--}" %s "$2"
        shift ;;
      --spot) spot=yes ;;
      --queued) queued=yes ;;
      --dry-run) dry_run=yes ;;
      --)
        shift
        command=("$@")
        break ;;
      -*) fail "unknown option '$1'; known: --name --zone --project --type --version --spot --queued --dry-run" ;;
      *)
        [[ -z $action ]] || fail "one action at a time: got '$action' and '$1' (the command to run goes after --)"
        action=$1 ;;
    esac
    shift
  done
}

check() {
  case $action in
    create | copy | install | status | delete)
      ((${#command[@]} == 0)) || fail "'$action' takes no command after --; use run or all" ;;
    run | all)
      ((${#command[@]})) || fail "'$action' needs a command after --, such as: -- python -m uniaudio_jax.train CONFIG --out RUN" ;;
    "") fail "which action? one of: create copy install run status delete all" ;;
    *) fail "unknown action '$action'; known: create copy install run status delete all" ;;
  esac
  [[ -n $name ]] || fail "option --name is missing: the name of the slice"
  [[ -n $zone ]] || fail "option --zone is missing: where the slice is, such as us-west4-a"
  [[ -n $dry_run ]] || command -v gcloud >/dev/null ||
    fail "gcloud is not installed; install the Google Cloud CLI, or see the commands with --dry-run"
}

# Prints a command as one would type it.
show() {
  local word
  printf '+'
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:,=@%+-]+$ ]]; then printf ' %s' "$word"; else printf ' %s' "${word@Q}"; fi
  done
  printf '\n'
}

# Runs a command, or only prints it in a dry run.
execute() {
  show "$@"
  if [[ -z $dry_run ]]; then "$@"; fi
}

# gcloud compute tpus GROUP VERB NAME …, at our place.
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
  tpus queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type" "--runtime-version=$version" ${spot:+--spot}
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
  if [[ -n $(git -C "$repository" status --porcelain) ]]; then
    echo "warning: changes that are not committed are not copied" >&2
  fi
  execute git -C "$repository" archive --format=tar.gz "--output=$archive" HEAD
  tpus tpu-vm scp "$archive" "$name:uniaudio_jax.tar.gz" --worker=all
  on_all_workers "mkdir -p uniaudio_jax && tar -xzf uniaudio_jax.tar.gz -C uniaudio_jax"
}

# The TPU images carry Python 3.10: a newer one is installed beside it.
install() {
  on_all_workers "command -v python3.11 >/dev/null || (sudo apt-get update && sudo apt-get install -y python3.11-venv python3.11-dev)"
  on_all_workers "cd uniaudio_jax && bash launch/install.sh tpu"
}

# A TPU VM learns of its fellow workers from the metadata server, not from its environment: the variable says so.
run() {
  local words
  printf -v words ' %q' "${command[@]}"
  on_all_workers "cd uniaudio_jax && export PATH=\"\$PWD/.venv/bin:\$PATH\" UNIAUDIO_DISTRIBUTED=auto &&$words"
}

status() {
  if [[ -n $queued ]]; then tpus queued-resources describe "$name"; else tpus tpu-vm describe "$name"; fi
}

delete() {
  if [[ -n $queued ]]; then tpus queued-resources delete "$name" --force --quiet; else tpus tpu-vm delete "$name" --quiet; fi
}

all() {
  create
  copy
  install
  run
}

parse "$@"
check
scratch="$(mktemp -d)"
trap 'rm -rf -- "$scratch"' EXIT
"$action"
