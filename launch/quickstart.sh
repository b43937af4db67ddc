#!/usr/bin/env bash
# The whole path on a CPU: first the model that comes with the package is heard; then it learns a new voice: audio
# files, tokens, training, checkpoint, waveforms, numbers, a page to hear them on, a folder for PyTorch.
#
#   bash launch/quickstart.sh                  install, then all stages; results in runs/quickstart
#   bash launch/quickstart.sh --text "Hello."  the sentence that the shipped model speaks
#   bash launch/quickstart.sh --from-scratch   train a small model of eleven tasks instead; results in runs/scratch
#   bash launch/quickstart.sh --install-only   stop after the installation
#   bash launch/quickstart.sh --clean          delete the earlier results first
#   RUN=/data/first bash launch/quickstart.sh  write the results to another folder
#
# Run it again after an interruption: each stage skips what is done, and training continues from its checkpoint.
set -Eeuo pipefail  # -E: the trap below also holds inside functions
run="${RUN:+$(realpath -m -- "$RUN")}"  # relative to the caller's folder
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

# The voice that the shipped model learns, one of espeak's that it never heard, and the minutes of all domains together
# of which speech has its share: 8 minutes of it.
new_voice="en-us+linda"
voice_minutes=29
# From scratch: domains of the synthetic corpus, and the tasks that are built from each.
domains=(speech parallel singing instructed sound music)
tasks=(
  speech:tts speech:enhancement speech:target_speech_extraction speech:dereverberation speech:speech_edit
  parallel:voice_conversion
  singing:singing
  instructed:instructed_tts
  sound:text_to_sound sound:audio_edit
  music:text_to_music
)
# Minutes of audio in all domains together. Music and sounds are more varied than speech and quick to make.
minutes=36
varied_minutes=160
stage="0/7 install"
install_only="" clean="" from_scratch="" text="The old man opened the window, and the morning came in."

# Deletes the results, and refuses to where the folder holds more than results.
delete_results() {
  local folder advice="set RUN to a folder of its own"
  folder="$(realpath -m -- "$run")"
  case "$(pwd -P)/" in "${folder%/}/"*) fail "--clean would delete $folder, which holds this checkout; $advice" ;; esac
  case "$HOME/" in "${folder%/}/"*) fail "--clean would delete $folder, which holds your home; $advice" ;; esac
  echo "deleting $run"
  rm -rf -- "$folder"
}

begin() {
  stage=$1
  echo "[$stage]"
}

module() {
  execute .venv/bin/python -m "$@"
}

main() {
  parse_options "" "--text" "--install-only --clean --from-scratch" "$@"
  run="${run:-runs/$(if [[ -n $from_scratch ]]; then echo scratch; else echo quickstart; fi)}"
  if [[ -n $clean ]]; then delete_results; fi
  bash launch/install.sh quickstart report metrics
  if [[ -n $install_only ]]; then return; fi

  export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
  trap 'echo "error: stage $stage failed; run this script again to continue from there" >&2' ERR
  SECONDS=0
  if [[ -n $from_scratch ]]; then train_from_scratch; else hear_and_train_on; fi
  begin "6/7 report"
  module uniaudio_jax.report --run "$run" --out "$run/report.html"
  begin "7/7 export"
  module uniaudio_jax.export_torch --run "$run" --out "$run/torch"
  echo "done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
  echo "results in $run: report.html, evaluation.md, samples/, checkpoints/, torch/"
}

# The shipped model is heard, learns a new voice, and is evaluated on it.
hear_and_train_on() {
  begin "1/7 hear the shipped model"
  module uniaudio_jax.tour --text "$text" --out "$run/samples"
  begin "2/7 corpus of a new voice"
  module data_pipelines.synthetic --out "$run/data/corpus" --minutes "$voice_minutes" --voices espeak \
    --speakers "$new_voice" --grammar wide_sentences --timed-share 1 --domain speech
  begin "3/7 tokens"
  module data_pipelines.builder --corpus "$run/data/corpus/speech" --task tts --codec clear_16k \
    --source "made by data_pipelines.synthetic" --licence Apache-2.0 --out "$run/data/tokens"
  begin "4/7 train"
  module uniaudio_jax.train configs/new_voice.py --out "$run" --data.root "$run/data/tokens"
  begin "5/7 evaluate"
  module uniaudio_jax.evaluate --run "$run" --count 8 --sampling.temperature 0.3
}

# A small model of eleven tasks out of nothing.
train_from_scratch() {
  begin "1/7 corpus"
  module data_pipelines.synthetic --out "$run/data/corpus" --minutes "$minutes" --voices espeak \
    --domain speech parallel singing instructed
  module data_pipelines.synthetic --out "$run/data/corpus" --minutes "$varied_minutes" --domain sound music
  begin "2/7 tokens"
  module data_pipelines.builder --corpus "${domains[@]/#/$run/data/corpus/}" --task "${tasks[@]}" --codec tiny_16k \
    --source "made by data_pipelines.synthetic" --licence Apache-2.0 --out "$run/data/tokens"
  begin "3/7 train"
  module uniaudio_jax.train configs/quickstart.py --out "$run" --data.root "$run/data/tokens"
  begin "4/7 generate"
  module uniaudio_jax.generate --run "$run" --task "${tasks[@]#*:}" --split heldout --count 2 --out "$run/samples"
  begin "5/7 evaluate"
  module uniaudio_jax.evaluate --run "$run" --count 2
}

main "$@"
