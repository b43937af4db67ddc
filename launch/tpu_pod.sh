#!/usr/bin/env bash
# Runs a command on a Cloud TPU slice: creates the slice, copies this checkout to every worker, installs, and runs.
#
#   bash launch/tpu_pod.sh loop --name uni --zone us-west4-a --queued --spot -- \
#     python -m uniaudio_jax.train configs/paper.py --out gs://BUCKET/run
#
# Actions:
#   create    takes the slice that is there, or creates it; one that was preempted or has failed is deleted first
#   copy install run    one by one; `run` frees the TPU of what an earlier run left there, and needs -- COMMAND
#   all       create, copy, install, run
#   loop      all, again and again until the command ends with 0, or with 2 (a mistake that another try cannot mend)
#   logs      the output of every worker, into runs/logs/NAME
#   stop      tells the command to save and end, on all workers
#   status delete
#
#   --name NAME       of the slice                      (needed)
#   --zone ZONE       such as us-west4-a                (needed)
#   --project ID      default: gcloud's own setting
#   --type TYPE       default v5litepod-256
#   --version NAME    TPU software version, default v2-alpha-tpuv5-lite
#   --spot            cheaper, but may be preempted
#   --queued          as a queued resource; every action needs the option then
#   --extras WORDS    extras of launch/install.sh beside tpu, such as "wandb metrics"
#   --retries N       how often `loop` tries again before it gives up, default 10; it counts from 0 again whenever a
#                     training resumes at another step than the time before
#   --dry-run         print the commands, run none
#
# What is committed is copied (git archive HEAD), not the changes beside it. Every worker runs the same command from
# the copy, with .venv's python first in PATH. The workers have no disk in common: RUN and the data must be in a bucket or
# on a share that all of them mount. The command does not end with this script: `run` again stops and resumes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

name="" zone="" project="" type="v5litepod-256" version="v2-alpha-tpuv5-lite" spot="" queued="" extras="" retries=10

check() {
  case $action in
    create | copy | install | logs | stop | status | delete)
      ((${#command[@]} == 0)) || fail "'$action' takes no command after --; use run, all or loop" ;;
    run | all | loop)
      ((${#command[@]})) ||
        fail "'$action' needs a command after --, such as: -- python -m uniaudio_jax.train CONFIG --out RUN" ;;
    "") fail "which action? one of: create copy install run all loop logs stop status delete" ;;
    *) fail "unknown action '$action'; known: create copy install run all loop logs stop status delete" ;;
  esac
  [[ -n $name ]] || fail "option --name is missing: the name of the slice"
  [[ -n $zone ]] || fail "option --zone is missing: where the slice is, such as us-west4-a"
  [[ $retries =~ ^[0-9]+$ ]] || fail "option --retries: got '$retries', wanted a whole number"
  need_program gcloud "the Google Cloud CLI"
}

# Runs gcloud compute tpus GROUP VERB NAME …, in the zone and project of the slice.
tpus() {
  execute gcloud compute tpus "$@" "--zone=$zone" ${project:+"--project=$project"}
}

on_workers() {
  tpus tpu-vm ssh "$name" "--worker=$1" "--command=$2"
}

# ask GROUP FIELD sets `answer` to a field of the slice, or to ABSENT. Any other failure of gcloud ends the script: it says
# nothing about the slice.
ask() {
  local question=(gcloud compute tpus "$1" describe "$name" "--format=value($2)" "--zone=$zone")
  if [[ -n $project ]]; then question+=("--project=$project"); fi
  show "${question[@]}"
  if [[ -n $dry_run ]]; then
    answer=ABSENT
  elif ! answer="$("${question[@]}" 2>"$scratch/refusal")"; then
    grep -q NOT_FOUND "$scratch/refusal" || { cat "$scratch/refusal" >&2 && exit 1; }
    answer=ABSENT
  fi
}

# Sets `state` to that of the queued resource until it is active, then to that of the TPU VM.
find_state() {
  answer=ACTIVE
  if [[ -n $queued ]]; then ask queued-resources state.state; fi
  if [[ $answer == ACTIVE ]]; then
    ask tpu-vm state
    if [[ -n $queued && $answer == ABSENT ]]; then answer=TERMINATED; fi
  fi
  state=$answer
}

create() {
  find_state
  while [[ $state == DELETING || $state == SUSPENDING ]]; do
    echo "$name: $state"
    sleep 30
    find_state
  done
  case $state in
    PREEMPTED | TERMINATED | SUSPENDED | FAILED)
      echo "$name is $state: deleting what is left of it"
      delete
      state=ABSENT ;;
  esac
  if [[ $state == ABSENT ]]; then request; fi
  wait_until_ready
}

request() {
  if [[ -n $queued ]]; then
    tpus queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type" "--runtime-version=$version" \
      ${spot:+--spot}
  else
    tpus tpu-vm create "$name" "--accelerator-type=$type" "--version=$version" ${spot:+--spot}
  fi
}

# Asks each half minute until the slice is ready; ends with 1 when it never will be.
wait_until_ready() {
  while true; do
    find_state
    if [[ -n $dry_run || $state == READY ]]; then return; fi
    echo "$name: $state"
    case $state in
      ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING | CREATING | STARTING | RESTARTING | REPAIRING) sleep 30 ;;
      *) echo "error: $name is $state and will not become READY; see status" >&2 && exit 1 ;;
    esac
  done
}

copy() {
  local archive="$scratch/uniaudio_jax.tar.gz"
  if [[ -n $(git status --porcelain) ]]; then
    echo "warning: changes that are not committed are not copied" >&2
  fi
  execute git archive --format=tar.gz "--output=$archive" HEAD
  tpus tpu-vm scp "$archive" "$name:uniaudio_jax.tar.gz" --worker=all
  on_workers all "mkdir -p uniaudio_jax && tar -xzf uniaudio_jax.tar.gz -C uniaudio_jax"
}

# The TPU images carry Python 3.10: a newer one is installed beside it.
install() {
  local packages="sudo apt-get update && sudo apt-get install -y python3.11-venv python3.11-dev"
  on_workers all "command -v python3.11 >/dev/null || ($packages)"
  on_workers all "cd uniaudio_jax && bash launch/install.sh tpu${extras:+ $extras}"
}

# A TPU VM finds the other workers through the metadata server, which this variable tells the trainer to ask.
run() {
  local words attempt=ATTEMPT
  if [[ -z $dry_run ]]; then attempt="$(date +%Y%m%d-%H%M%S)"; fi
  printf -v words ' %q' "${command[@]}"
  on_workers all "cd uniaudio_jax && export PATH=\"\$PWD/.venv/bin:\$PATH\" UNIAUDIO_DISTRIBUTED=auto &&\
 bash launch/tpu_worker.sh run --attempt $attempt --$words"
}

all() {
  create
  copy
  install
  run
}

# The user's mistake is the same on every worker. Where another one ended otherwise, the 2 may come of that.
is_mistake() {
  local codes
  codes="$(grep -o 'failed with exit status [0-9]*' "$scratch/output" | sort -u || true)"
  (($1 == 2)) && [[ -z $codes || $codes == "failed with exit status 2" ]]
}

loop() {
  local code failures=0 step latest=""
  if [[ -n $dry_run ]]; then all && return; fi
  while true; do
    set +e  # for the pipe alone: `if` or || would switch it off inside `all` too
    (set -e; all) 2>&1 | tee "$scratch/output"
    code=$?
    set -e
    if ((code == 0)) || is_mistake "$code"; then exit "$code"; fi
    step="$(grep -oE 'resuming after step [0-9]+' "$scratch/output" | tail -n 1 || true)"
    if [[ -n $step && $step != "$latest" ]]; then latest=$step failures=0; fi
    if ((++failures > retries)); then
      echo "error: ended with $code, $failures times without a later checkpoint; last: ${latest:-none}" >&2
      exit "$code"
    fi
    # Only another machine helps against a device that nobody can be seen to hold.
    if grep -qE 'Device or resource busy|is still held' "$scratch/output"; then delete || true; fi
    echo "ended with $code; trying again ($failures of $retries without a later checkpoint)"
    sleep $((30 * failures))
  done
}

# gcloud copies from one worker at a time.
logs() {
  local folder="runs/logs/$name" worker
  ask tpu-vm 'networkEndpoints.len()'
  if [[ -n $dry_run ]]; then answer=1; fi
  [[ $answer != ABSENT ]] || fail "there is no slice $name in $zone"
  for ((worker = 0; worker < answer; worker++)); do
    execute mkdir -p "$folder/$worker"
    tpus tpu-vm scp "$name:uniaudio_jax/runs/worker/*.log" "$folder/$worker" "--worker=$worker" ||
      echo "warning: worker $worker gave no log" >&2
  done
}

stop() {
  on_workers all "cd uniaudio_jax && bash launch/tpu_worker.sh clean"
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

parse_options action "--name --zone --project --type --version --extras --retries" "--spot --queued --dry-run" "$@"
action=$word
check
scratch="$(mktemp -d)"
trap 'rm -rf -- "$scratch"' EXIT
trap 'echo "interrupted; a command that has been started goes on, until the action stop" >&2; exit 130' INT
"$action"
