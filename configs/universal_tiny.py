"""The shipped model: eleven tasks, `plain_tts` and `asr` in one set of weights, trained on two CPU cores.

    J=piper-en_US-joe-medium K=kokoro-jm_kumo A=kokoro-jf_alpha D=runs/universal
    speech() {
      python -m data_pipelines.synthetic --domain speech --grammar wide_sentences --timed-share 1 \\
          --speakers $J $K $J@0.86 $A $J@1.14 $K en-us+m3 $A en-us+f4 "$@"
    }
    speech --out $D/corpus --minutes 430
    speech --out $D/more --minutes 200 --seed 1
    python -m data_pipelines.synthetic --out $D/corpus --domain sound music singing instructed --minutes 330 \\
        --grammar wide_sentences
    python -m data_pipelines.synthetic --out $D/more --domain music --minutes 1100 --seed 1
    python -m data_pipelines.synthetic --out $D/more --domain sound --minutes 857 --seed 1
    python -m data_pipelines.synthetic --out $D/more2 --domain music --minutes 1100 --seed 2
    rename() { (grep train $1/manifest.jsonl; grep -m 1 heldout $1/manifest.jsonl) > $1/$2.jsonl; }
    cp $D/more/music/manifest.jsonl $D/more/music/more_music.jsonl
    rename $D/more/sound more_sound
    rename $D/more2/music music_2
    python -m data_pipelines.align --corpus $D/corpus/speech --exact en-us+m3 en-us+f4
    python -m data_pipelines.align --corpus $D/more/speech --out $D/more/speech/more_speech.jsonl \\
        --exact en-us+m3 en-us+f4
    python -m data_pipelines.builder --codec clear_16k --out $D/tokens --corpus $D/corpus/speech \\
        $D/more/speech/more_speech.jsonl --task tts plain_tts asr voice_conversion enhancement \\
        target_speech_extraction dereverberation speech_edit

and the builder for the other four corpora, more_music.jsonl, music_2.jsonl and more_sound.jsonl with their tasks; then,
from the weights shipped so far,

    python -m uniaudio_jax.train configs/universal_tiny.py --out $D/run --start-from universal_tiny

Conversion is judged by sentences in two voices, cleaning also at 5 dB:

    python -m data_pipelines.synthetic --out $D/corpus --domain parallel --minutes 30 --grammar wide_sentences \\
        --speakers $J $K $J@0.86 $A
    python -m data_pipelines.builder --codec clear_16k --out $D/vc --corpus $D/corpus/parallel --task voice_conversion
    cd $D/corpus/speech && (grep -m 64 heldout manifest.jsonl; grep -m 16 train manifest.jsonl) > at_5_db.jsonl && cd -
    python -m data_pipelines.builder --codec clear_16k --out $D/at5 --corpus $D/corpus/speech/at_5_db.jsonl \\
        --task enhancement target_speech_extraction --mixers.snr-db 5 5 --mixers.talker-db 5 5
"""

from dataclasses import replace

from configs import base
from uniaudio_jax.config import MODERN, OptimConfig, RunConfig, StackConfig
from uniaudio_jax.vocab import WORD_PIECES

TASKS = {
    "tts": 9.0,
    "plain_tts": 0.7,
    "asr": 0.3,
    "voice_conversion": 3.0,
    "enhancement": 6.0,
    "target_speech_extraction": 6.0,
    "dereverberation": 0.7,
    "speech_edit": 2.5,
    "singing": 0.8,
    "instructed_tts": 1.0,
    "text_to_sound": 2.0,
    "audio_edit": 1.5,
    "text_to_music": 4.0,
}
"""Shares of the frames."""
HISTORY_DROPOUT = dict.fromkeys(TASKS, 0.9) | {"instructed_tts": 0.3, "text_to_sound": 0.2, "text_to_music": 0.2}
"""Less where no condition says what comes when, so that a model has only its past to know how far it is."""


def get_config() -> RunConfig:
    """Frames get what the conditions hold at their time and ahead of it, so that phones with durations need no
    alignment to be learned; of tasks with such conditions most of the history is spoilt, as a model that rests on its
    past drifts off when it hears itself."""
    run = base.get_config()
    return replace(
        run,
        name="universal_tiny",
        codec="clear_16k",
        model=replace(
            run.model,
            context_frames=1024,
            layout=replace(MODERN, aligned=(0, 1, 2, 4, 7, 12)),
            appended={"text": WORD_PIECES},
            global_stack=StackConfig(layers=5, width=240, heads=4),
            local_stack=StackConfig(layers=2, width=240, heads=4),
        ),
        data=replace(
            run.data,
            root="runs/universal/tokens",
            tasks=TASKS,
            row_frames=768,
            target_frames=512,
            rows=2,
            text_frames=96,
            prompt_seconds=1.5,
            history_dropout=HISTORY_DROPOUT,
            condition_dropout=0.1,
            loss_weights={"asr": 5.0},
        ),
        train=replace(
            run.train,
            steps=3500,
            global_remat="none",
            local_chunk_frames=256,
            save_every_steps=500,
            log_every_steps=20,
            evaluate_every_steps=3500,
        ),
        optim=OptimConfig(
            name="muon", schedule="warmup_stable_decay", peak_learning_rate=1.5e-3, warmup_steps=200, decay_share=0.6
        ),
    )
