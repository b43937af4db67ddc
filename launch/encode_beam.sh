#!/usr/bin/env bash
# Tokenises a corpus on Apache Beam: on this machine, or on Dataflow, Flink or Spark.
#
#   bash launch/encode_beam.sh direct   -- --corpus DIR --task tts --out TOKENS
#   bash launch/encode_beam.sh dataflow --project ID --region REGION --bucket gs://B --image IMAGE -- --corpus …
#   bash launch/encode_beam.sh flink    --master HOST:8081 --image IMAGE -- --corpus …
#   bash launch/encode_beam.sh spark    --master HOST:8099 --image IMAGE -- --corpus …
#
#   --workers N    processes on this machine (direct, default: all cores), or the most workers (dataflow, default 64)
#   --dry-run      print the command, do not run it
#
# Arguments after -- go to `python -m data_pipelines.builder`. Every worker must see the corpus and TOKENS under the same
# path (NFS, Filestore, a mounted bucket): finished parts of the dataset are kept there, and a run that was killed
# continues from them. IMAGE is a container of Beam's Python SDK with this checkout and `bash launch/install.sh beam` in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

project="" region="" bucket="" image="" master="" workers=""
parse_options runner "--project --region --bucket --image --master --workers" "--dry-run" "$@"
runner=$word builder=("${command[@]}")
[[ -n $runner ]] || fail "no runner; wanted direct, dataflow, flink or spark"
((${#builder[@]})) || fail "no options of the builder after --, such as: -- --corpus DIR --task tts --out TOKENS"

# Fails unless the named options were given.
need() {
  local name
  for name in "$@"; do [[ -n ${!name} ]] || fail "$runner needs --$name"; done
}

case $runner in
  direct)
    options=(--runner DirectRunner "--beam-options=--direct_running_mode=multi_processing"
      "--direct_num_workers=${workers:-0}") ;;
  dataflow)
    need project region bucket image
    options=(--runner DataflowRunner "--beam-options=--project=$project" "--region=$region"
      "--temp_location=$bucket/temp" "--staging_location=$bucket/staging" "--sdk_container_image=$image"
      "--max_num_workers=${workers:-64}" "--experiments=use_runner_v2") ;;
  flink)
    need master image
    options=(--runner FlinkRunner "--beam-options=--flink_master=$master" "--environment_type=DOCKER"
      "--environment_config=$image") ;;
  spark)
    need master image
    options=(--runner PortableRunner "--beam-options=--job_endpoint=$master" "--environment_type=DOCKER"
      "--environment_config=$image") ;;
  *) fail "unknown word '$runner'; wanted direct, dataflow, flink or spark, its options, and -- BUILDER OPTIONS" ;;
esac

command=(.venv/bin/python -m data_pipelines.builder "${builder[@]}" "${options[@]}")
show "${command[@]}"
if [[ -z $dry_run ]]; then
  export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
  exec "${command[@]}"
fi
