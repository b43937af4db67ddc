#!/usr/bin/env bash
# Runs a command on TPU slices of a GKE cluster, by xpk, or as a manifest for those who have kubectl alone.
#
#   bash launch/gke_xpk.sh create --name uni --cluster C --zone us-west4-a --image IMAGE --type v5litepod-256 --slices 2 -- \
#     python -m uniaudio_jax.train configs/paper.py --out gs://BUCKET/run
#   bash launch/gke_xpk.sh status | logs | delete --name uni --cluster C --zone us-west4-a
#   bash launch/gke_xpk.sh manifest --name uni --image IMAGE --accelerator tpu-v5-lite-podslice --topology 16x16 -- \
#     python -m uniaudio_jax.train configs/paper.py --out gs://BUCKET/run | kubectl apply -f -
#
#   --name NAME           of the workload                              (needed)
#   --cluster NAME --zone ZONE                                         (needed, but for manifest)
#   --project ID          default: gcloud's own setting
#   --image IMAGE         of launch/docker/Dockerfile, PLATFORM=tpu    (needed by create and manifest)
#   --type TYPE           of each slice, default v5litepod-256         (create)
#   --accelerator LABEL   default tpu-v5-lite-podslice                 (manifest)
#   --topology TOPOLOGY   default 16x16                                (manifest)
#   --chips N             of one host, default 4                       (manifest)
#   --slices N            default 1
#   --restarts N          after preemptions and failures, default 50
#   --dry-run             print the commands, run none
#
# A restart resumes from the last checkpoint, so RUN must be in a bucket. A user's mistake (code 2) is not tried again.
# `logs` asks kubectl, with the cluster's credentials, which xpk fetches.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

name="" cluster="" zone="" project="" image="" type="v5litepod-256" slices=1 restarts=50
accelerator="tpu-v5-lite-podslice" topology="16x16" chips=4

# Fails unless the named options were given.
need() {
  local option
  for option in "$@"; do [[ -n ${!option} ]] || fail "'$action' needs --$option"; done
}

# Fails unless the named options are whole numbers of at least 1.
need_count() {
  local option
  for option in "$@"; do
    [[ ${!option} =~ ^[1-9][0-9]*$ ]] || fail "option --$option: got '${!option}', wanted a whole number from 1"
  done
}

check() {
  case $action in
    create | manifest)
      need name image
      need_count slices chips restarts
      [[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*)+$ ]] || fail "option --topology: got '$topology', wanted such as 16x16"
      ((${#command[@]})) ||
        fail "'$action' needs a command after --, such as: -- python -m uniaudio_jax.train CONFIG --out RUN" ;;
    status | logs | delete)
      need name
      ((${#command[@]} == 0)) || fail "'$action' takes no command after --; use create or manifest" ;;
    "") fail "which action? one of: create manifest status logs delete" ;;
    *) fail "unknown action '$action'; known: create manifest status logs delete" ;;
  esac
  case $action in
    create | status | delete)
      need cluster zone
      need_program xpk "it with pip install xpk" ;;
    logs) need_program kubectl "the Google Cloud CLI's component kubectl" ;;
  esac
}

# Runs xpk workload VERB … on the cluster.
workload() {
  execute xpk workload "$@" "--cluster=$cluster" "--zone=$zone" ${project:+"--project=$project"}
}

# xpk restarts after 42 and after signals, such as 134 (another worker died). 75 is launch/worker.py's, for stopped and saved;
# 1 may be the machine's. xpk passes SIGTERM to one process: the command must be no compound one.
create() {
  local words
  printf -v words ' %q' "${command[@]}"
  workload create "--workload=$name" "--docker-image=$image" "--tpu-type=$type" "--num-slices=$slices" \
    "--max-restarts=$restarts" --restart-on-exit-codes=1,75 --termination-grace-period-seconds=120 \
    "--command=python launch/worker.py$words"
}

# Prints launch/jobset.yaml with its variables filled in; the arguments, which may look like one, come last.
manifest() {
  local chips_of_slice=$((${topology//x/ * })) text values i
  ((chips_of_slice % chips == 0)) || fail "--topology $topology does not divide into hosts of $chips chips (--chips)"
  values=(NAME "$name" IMAGE "$image" RESTARTS "$restarts" SLICES "$slices" ACCELERATOR "$accelerator"
    TOPOLOGY "$topology" HOSTS $((chips_of_slice / chips)) CHIPS "$chips" ARGUMENTS "$(json_list "${command[@]}")")
  text="$(sed '/^#/d' launch/jobset.yaml)"
  for ((i = 0; i < ${#values[@]}; i += 2)); do
    text="${text//"\${${values[i]}}"/"${values[i + 1]}"}"
  done
  printf '%s\n' "$text"
}

# Prints its arguments as a list of JSON strings.
json_list() {
  local word list=""
  for word in "$@"; do
    word="${word//\\/\\\\}"
    list+="${list:+, }\"${word//\"/\\\"}\""
  done
  printf '[%s]\n' "$list"
}

status() {
  workload list "--filter-by-job=$name"
}

logs() {
  execute kubectl logs --selector "jobset.sigs.k8s.io/jobset-name=$name" --prefix --tail=-1 --max-log-requests=1000
}

delete() {
  workload delete "--workload=$name" --force
}

parse_options action "--name --cluster --zone --project --image --type --accelerator --topology --chips --slices --restarts" \
  "--dry-run" "$@"
action=$word
check
"$action"
