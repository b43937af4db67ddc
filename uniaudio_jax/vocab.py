"""The one id space: special tokens, then one range of ids for each modality (order of the public checkpoints)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from uniaudio_jax.tasks import TASKS

PUBLIC_TOKENS = tuple(
    """
    <pad> <continuous_token> <start> <end> <phone_start> <phone_end> <text_start> <text_end> <audio_start>
    <audio_end> <image_start> <image_end> <audio_prompt_start> <audio_prompt_end> <text_prompt_start>
    <text_prompt_end> <semantic_start> <semantic_end> <tts_task> <plain_tts_task> <lm_task> <phone_to_semantic_task>
    <semantic_to_acoustic_task> <mega_global> <mega_local> <text_emb_start> <text_emb_end> <asr_task> <VC_task>
    <AT_task> <class_event_start> <class_event_end> <Spex_task> <TTA_task> <rvq_start> <rvq_end> <TSS_task>
    <text_t5_start> <text_t5_end> <SV_task> <sv_bool_start> <sv_bool_end> <SE_task> <sing_task> <sing_phone_start>
    <sing_phone_end> <sing_midi_start> <sing_midi_end> <TTM_task> <Audit_task> <InstructTTS_task> <Speech_RIR_task>
    <speech_edit_task>
    """.split()
)
"""The special tokens of the public checkpoints, in the order of their ids."""


def own_tokens() -> tuple[str, ...]:
    """Tokens of the task table that the public format lacks, in slots that it reserves; new rows add to the end."""
    tokens: list[str] = []
    for task in TASKS.values():
        marks = [f"<{stream.kind}_{mark}>" for stream in task.streams for mark in ("start", "end")]
        tokens += [token for token in (task.token, *marks) if token not in (*PUBLIC_TOKENS, *tokens)]
    return tuple(tokens)


SPECIAL_TOKENS = PUBLIC_TOKENS + own_tokens()
SPECIAL_SLOTS = 128
assert len(SPECIAL_TOKENS) <= SPECIAL_SLOTS
SPECIAL_IDS = {name: number for number, name in enumerate(SPECIAL_TOKENS)}
PAD, CONTINUOUS, START, END = (SPECIAL_IDS[name] for name in ("<pad>", "<continuous_token>", "<start>", "<end>"))
START_MARKS, END_MARKS = (
    tuple(number for name, number in SPECIAL_IDS.items() if name.endswith(f"_{mark}>")) for mark in ("start", "end")
)
"""The marks that begin and end a stream."""
GLOBAL_START, LOCAL_START = SPECIAL_IDS["<mega_global>"], SPECIAL_IDS["<mega_local>"]

PHONES, SEMANTIC_UNITS, SUNG_PHONES, MIDI_NOTES = 305, 500, 68, 138
PUBLIC_RANGES: tuple[str, ...] = ("audio", "phone", "semantic", "sing_phone", "sing_midi")
"""The ranges of the public checkpoints, in the order of their ids."""

WORD_PIECES, CLASS_EVENTS, SAME_OR_NOT, LANGUAGES = 1000, 527, 2, 64
"""Usual sizes of appended ranges: pieces of words, sound events, the answers of speaker verification, languages."""


@dataclass(frozen=True)
class Vocabulary:
    """Ids of a run with `codebooks` levels of `entries` codes: 4212 of them for the paper's 3 x 1024.

    public: the first of PUBLIC_RANGES; appended: sizes of further ranges by name, which follow the public ones.
    Audio code c of level q has the id `span("audio").start + q * entries + c`; the last audio id masks audio that a
    speech edit fills in.
    """

    codebooks: int
    entries: int = 1024
    appended: Mapping[str, int] = field(default_factory=dict)
    public: tuple[str, ...] = PUBLIC_RANGES

    @cached_property
    def ranges(self) -> dict[str, range]:
        """Name of a range → its ids."""
        audio = self.codebooks * self.entries + 1
        public = dict(zip(PUBLIC_RANGES, (audio, PHONES, SEMANTIC_UNITS, SUNG_PHONES, MIDI_NOTES), strict=True))
        sizes = {name: public[name] for name in self.public} | dict(self.appended)
        ranges, start = {}, SPECIAL_SLOTS
        for name, size in sizes.items():
            ranges[name] = range(start, start + size)
            start += size
        return ranges

    def span(self, name: str) -> range:
        """The ids of the range `name`. Raises ValueError with the remedy when this vocabulary has no such range."""
        if name in self.ranges:
            return self.ranges[name]
        remedy = f"append one in the config: model.appended {name} SIZE"
        if name in PUBLIC_RANGES:
            remedy = "the checkpoint that it was imported from has too few ids for it (model.ranges)"
        known = ", ".join(self.ranges) or "special tokens alone"
        raise ValueError(f"the vocabulary has no range {name!r}, it has {known}; {remedy}")

    @property
    def size(self) -> int:
        """Number of ids up to the last one that has a meaning."""
        return max((span.stop for span in self.ranges.values()), default=len(SPECIAL_TOKENS))

    @property
    def audio_mask(self) -> int:
        """The id of masked audio."""
        return self.span("audio").stop - 1

    def level(self, level: int) -> range:
        """Ids of the codes of one codebook level, 0 to codebooks - 1."""
        start = self.span("audio").start + level * self.entries
        return range(start, start + self.entries)

    def layout(self) -> dict[str, list]:
        """JSON form, kept in every checkpoint: two runs can share weights only where their layouts agree."""
        spans: dict[str, list] = {name: [span.start, len(span)] for name, span in self.ranges.items()}
        return {"special": list(SPECIAL_TOKENS), "codebooks": [self.codebooks, self.entries], **spans}


def ranges_within(size: int, codebooks: int, entries: int = 1024) -> tuple[str, ...]:
    """The first public ranges, as many as lie wholly within `size` ids."""
    spans = Vocabulary(codebooks, entries).ranges
    return tuple(name for name, span in spans.items() if span.stop <= size)


def grows_from(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether every id of the layout `old` means the same in `new`, which may have further ranges and tokens."""
    tokens = new["special"][: len(old["special"])] == old["special"]
    return tokens and all(new.get(name) == span for name, span in old.items() if name != "special")
