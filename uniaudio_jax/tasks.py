"""The Task rows: what each task is given, in which order, and what it makes. A new task is a new row."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from uniaudio_jax.errors import did_you_mean


@dataclass(frozen=True)
class Kind:
    """How a modality lies in the sequence, between `<kind_start>` and `<kind_end>`.

    form: "codes" are [n, Q] codec tokens; "ids" are [n] tokens, each repeated Q times; "vectors" are [n, W] floats,
    each in a frame of `<continuous_token>`. span: name of the vocabulary range (none for vectors). timed: whether an
    item stands for 20 ms of audio.
    """

    name: str
    form: Literal["codes", "ids", "vectors"]
    span: str | None
    timed: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("audio", "codes", "audio", timed=True),
        Kind("audio_prompt", "codes", "audio"),
        Kind("phone", "ids", "phone"),
        Kind("semantic", "ids", "semantic", timed=True),
        Kind("sing_phone", "ids", "sing_phone"),
        Kind("sing_midi", "ids", "sing_midi", timed=True),
        Kind("text_t5", "vectors", None),
        Kind("text", "ids", "text"),
        Kind("class_event", "ids", "class_event"),
        Kind("sv_bool", "ids", "sv_bool"),
        Kind("language", "ids", "language"),
    )
}


@dataclass(frozen=True)
class Stream:
    """One part of a task's sequence, and the column of a tokenised corpus that holds it.

    key: its name, in the sequence and in the store. source: the field of a clip that its tokens are made from.
    mixer: the field that a mixer derives first where the corpus does not have it (`data_pipelines.mixers`).
    """

    key: str
    kind: str
    source: str
    mixer: str | None = None


DRAWN = "speaker_prompt"
"""The source that no column holds: the loader cuts it from another utterance of the same speaker."""
MASKED = "masked_seconds"
"""The source whose column holds a span of frames alone: the loader blanks that span of the target's codes."""

PHONE = Stream("phone", "phone", "text")
CAPTION = Stream("caption", "text_t5", "text")
INSTRUCTION = Stream("instruction", "text_t5", "instruction")
WORDS = Stream("words", "text", "text")
SPEAKER_PROMPT = Stream(DRAWN, "audio_prompt", DRAWN)
PAIRED_PROMPT = Stream("paired_prompt", "audio_prompt", "paired_audio", mixer="paired_audio")
SAME_SPEAKER = Stream("same_speaker", "sv_bool", "same_speaker", mixer="paired_audio")
CONTENT = Stream("content", "semantic", "content_audio", mixer="content_audio")
SEMANTIC = Stream("semantic", "semantic", "audio")
SUNG_PHONE = Stream("sung_phone", "sing_phone", "text")
MIDI = Stream("midi", "sing_midi", "midi")
NOISY_AUDIO = Stream("noisy_audio", "audio", "noisy_audio", mixer="noisy_audio")
MIXTURE_AUDIO = Stream("mixture_audio", "audio", "mixture_audio", mixer="mixture_audio")
REVERBERANT_AUDIO = Stream("reverberant_audio", "audio", "reverberant_audio", mixer="reverberant_audio")
MASKED_AUDIO = Stream("masked_audio", "audio", MASKED, mixer=MASKED)
AUDIO = Stream("audio", "audio", "audio")
EVENTS = Stream("events", "class_event", "labels")
LANGUAGE = Stream("language", "language", "language")
# An edit changes a clip's audio and words, so these three are columns of their own.
EDIT_ORDER = Stream("edit_order", "text_t5", "text", mixer="source_audio")
SOURCE_AUDIO = Stream("source_audio", "audio", "source_audio", mixer="source_audio")
EDITED_AUDIO = Stream("edited_audio", "audio", "audio", mixer="source_audio")


@dataclass(frozen=True)
class Task:
    """One row of the task table (arXiv 2310.00704 table 1).

    token: special token that names the task in a sequence. metrics: names in `metrics/registry.py`, of what is
    generated.
    """

    name: str
    token: str
    conditions: tuple[Stream, ...]
    target: Stream = AUDIO
    metrics: tuple[str, ...] = ()

    @property
    def makes_audio(self) -> bool:
        return KINDS[self.target.kind].form == "codes"

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams in the order of the sequence, the target last."""
        return (*self.conditions, self.target)

    @property
    def columns(self) -> tuple[Stream, ...]:
        """The streams that a tokenised corpus must hold; a speaker prompt is cut from the target's."""
        return tuple(stream for stream in self.streams if stream.source != DRAWN)


HEARD = ("whisper", "dnsmos", "distillmos")
"""Of speech, whatever its pace: the words that are heard, and two opinions of its quality."""
VOICE = ("speaker_similarity", "xvector_similarity")
"""Of a voice that a prompt, or the reference, gives."""
RESTORED_SPEECH = ("stoi", "pesq", "visqol", "si_sdr_db", "mel_distance", *HEARD, "length_ratio")
"""The target is the speech that the input holds, sample for sample."""
EDITED_SPEECH = ("stoi", "mel_distance", "mel_cepstral_distortion_db", *HEARD, "masked_words", "length_ratio")
"""The words outside of the masked span keep their places; the phase inside it is free, which SI-SDR would punish."""
SETS = ("frechet_codec_distance", "frechet_audio_distance", "kl_divergence", "retrieval_at_1")
"""What sounds are made of, all clips together or class by class; none compares moments."""
EDITED_SOUND = ("si_sdr_db", "mel_distance", *SETS, "length_ratio")
"""What the order leaves alone keeps its place and samples. STOI and PESQ are measures of speech."""
SAME_FRAMES = ("mel_distance", "mel_cepstral_distortion_db", "pitch", "length_ratio")
"""Units or notes say what sounds in each 20 ms, so that spectra and pitch can be compared frame by frame. They leave
open what STOI, PESQ and SI-SDR would compare, the envelope and the phase."""
FREE_FRAMES = (*HEARD, "aligned_mel_distance", "mel_cepstral_distortion_db", "length_ratio", "duration_error_seconds")
"""A text is said well at many paces: frames at the same time hold other sounds, and only aligned ones compare."""
MANNER = (*FREE_FRAMES, "aligned_pitch", "rate_order", "pitch_order")
"""Of speech whose rate and pitch an instruction states."""
TEXTURE = (*SETS, "clap_score", "mel_distance", "length_ratio")
"""A caption fixes the colour of a sound but no moment of it. The mel distance compares that colour coarsely, and says
something only beside its own chance, the row "another reference"."""
TOKENS = ("token_error_rate",)
LABELS = ("accuracy",)

TASKS = {
    task.name: task
    for task in (
        # The eleven of the paper.
        Task("tts", "<tts_task>", (PHONE, SPEAKER_PROMPT), metrics=(*FREE_FRAMES, *VOICE)),
        Task("voice_conversion", "<VC_task>", (CONTENT, SPEAKER_PROMPT), metrics=(*SAME_FRAMES, *HEARD, *VOICE)),
        Task("enhancement", "<SE_task>", (NOISY_AUDIO,), metrics=RESTORED_SPEECH),
        Task(
            "target_speech_extraction",
            "<Spex_task>",
            (MIXTURE_AUDIO, SPEAKER_PROMPT),
            metrics=(*RESTORED_SPEECH, *VOICE),
        ),
        Task("singing", "<sing_task>", (SUNG_PHONE, MIDI, SPEAKER_PROMPT), metrics=(*SAME_FRAMES, *VOICE)),
        Task("text_to_sound", "<TSS_task>", (CAPTION,), metrics=TEXTURE),
        Task("text_to_music", "<TTM_task>", (CAPTION,), metrics=(*TEXTURE, "tempo")),
        Task("audio_edit", "<Audit_task>", (EDIT_ORDER, SOURCE_AUDIO), EDITED_AUDIO, metrics=EDITED_SOUND),
        Task("dereverberation", "<Speech_RIR_task>", (REVERBERANT_AUDIO,), metrics=RESTORED_SPEECH),
        Task("instructed_tts", "<InstructTTS_task>", (PHONE, INSTRUCTION), metrics=MANNER),
        Task("speech_edit", "<speech_edit_task>", (PHONE, MASKED_AUDIO), metrics=EDITED_SPEECH),
        # Further formats of the public code.
        Task("plain_tts", "<plain_tts_task>", (PHONE,), metrics=FREE_FRAMES),
        Task("asr", "<asr_task>", (SEMANTIC,), WORDS, metrics=(*TOKENS, "text_error_rates")),
        Task("lm", "<lm_task>", (), WORDS),
        Task("speaker_verification", "<SV_task>", (AUDIO, PAIRED_PROMPT), SAME_SPEAKER, metrics=LABELS),
        Task("audio_tagging", "<AT_task>", (AUDIO,), EVENTS, metrics=(*LABELS, *TOKENS)),
        Task("phone_to_semantic", "<phone_to_semantic_task>", (PHONE,), SEMANTIC, metrics=TOKENS),
        Task("semantic_to_acoustic", "<semantic_to_acoustic_task>", (SEMANTIC,), metrics=SAME_FRAMES),
        # Our own.
        Task("language_recognition", "<language_task>", (AUDIO,), LANGUAGE, metrics=LABELS),
    )
}
STREAMS = {stream.key: stream for task in TASKS.values() for stream in task.columns}
"""Every column that a tokenised corpus may have, by its key."""
TASK_NUMBERS = {name: number for number, name in enumerate(TASKS)}


def get_task(name: str) -> Task:
    """The row called `name`. Raises ValueError with the nearest names when there is none."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}, the tasks are {', '.join(TASKS)}{did_you_mean(name, TASKS)}")
    return TASKS[name]


def metrics_of(tasks: Iterable[Task]) -> list[str]:
    """The names of the metrics of all these tasks, each once."""
    return list(dict.fromkeys(name for task in tasks for name in task.metrics))
