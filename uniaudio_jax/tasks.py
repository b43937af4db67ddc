"""The Task rows: what each task is given, in which order, and what it makes. A new task is a new row."""

from dataclasses import dataclass
from typing import Literal

from uniaudio_jax.config import did_you_mean


@dataclass(frozen=True)
class Kind:
    """How a modality lies in the sequence, between `<kind_start>` and `<kind_end>`.

    form: "codes" are [n, Q] codec tokens; "ids" are [n] tokens, each repeated Q times; "vectors" are [n, W] floats,
    each in a frame of `<continuous_token>`. span: name of the vocabulary range (none for vectors).
    """

    name: str
    form: Literal["codes", "ids", "vectors"]
    span: str | None


KINDS = {
    kind.name: kind
    for kind in (
        Kind("audio", "codes", "audio"),
        Kind("audio_prompt", "codes", "audio"),
        Kind("phone", "ids", "phone"),
        Kind("semantic", "ids", "semantic"),
        Kind("sing_phone", "ids", "sing_phone"),
        Kind("sing_midi", "ids", "sing_midi"),
        Kind("text_t5", "vectors", None),
    )
}


@dataclass(frozen=True)
class Stream:
    """One part of a task's sequence. key: its name in a record; source: the field of a clip that it is made from."""

    key: str
    kind: str
    source: str


DRAWN = "speaker_prompt"
"""The source that no record holds: the loader draws it from another utterance of the same speaker."""

PHONE = Stream("phone", "phone", "text")
CAPTION = Stream("caption", "text_t5", "text")
INSTRUCTION = Stream("instruction", "text_t5", "instruction")
SPEAKER_PROMPT = Stream(DRAWN, "audio_prompt", DRAWN)
SEMANTIC = Stream("semantic", "semantic", "audio")
SUNG_PHONE = Stream("sung_phone", "sing_phone", "text")
MIDI = Stream("midi", "sing_midi", "midi")
NOISY_AUDIO = Stream("noisy_audio", "audio", "noisy_audio")
MIXTURE_AUDIO = Stream("mixture_audio", "audio", "mixture_audio")
REVERBERANT_AUDIO = Stream("reverberant_audio", "audio", "reverberant_audio")
SOURCE_AUDIO = Stream("source_audio", "audio", "source_audio")
MASKED_AUDIO = Stream("masked_audio", "audio", "masked_audio")
AUDIO = Stream("audio", "audio", "audio")


@dataclass(frozen=True)
class Task:
    """One row of the task table (arXiv 2310.00704 table 1).

    token: special token that names the task in a sequence. metrics: names out of `metrics/`, for waveforms.
    """

    name: str
    token: str
    conditions: tuple[Stream, ...]
    target: Stream = AUDIO
    metrics: tuple[str, ...] = ("stoi", "mel_distance")

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (*self.conditions, self.target)


TASKS = {
    task.name: task
    for task in (
        Task("tts", "<tts_task>", (PHONE, SPEAKER_PROMPT)),
        Task("voice_conversion", "<VC_task>", (SEMANTIC, SPEAKER_PROMPT)),
        Task("enhancement", "<SE_task>", (NOISY_AUDIO,), metrics=("stoi", "si_sdr_db", "mel_distance")),
        Task("target_speech_extraction", "<Spex_task>", (MIXTURE_AUDIO, SPEAKER_PROMPT)),
        Task("singing", "<sing_task>", (SUNG_PHONE, MIDI, SPEAKER_PROMPT)),
        Task("text_to_sound", "<TSS_task>", (CAPTION,), metrics=("mel_distance",)),
        Task("text_to_music", "<TTM_task>", (CAPTION,), metrics=("mel_distance",)),
        Task("audio_edit", "<Audit_task>", (CAPTION, SOURCE_AUDIO), metrics=("mel_distance",)),
        Task("dereverberation", "<Speech_RIR_task>", (REVERBERANT_AUDIO,)),
        Task("instructed_tts", "<InstructTTS_task>", (PHONE, INSTRUCTION)),
        Task("speech_edit", "<speech_edit_task>", (PHONE, MASKED_AUDIO)),
    )
}
TASK_NUMBERS = {name: number for number, name in enumerate(TASKS)}


def get_task(name: str) -> Task:
    """The row called `name`. Raises ValueError with the nearest names when there is none."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}, the tasks are {', '.join(TASKS)}{did_you_mean(name, TASKS)}")
    return TASKS[name]
