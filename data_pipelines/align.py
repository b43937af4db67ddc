"""Finds how long each phone of a corpus lasts, by a model of phones that is trained on the corpus itself.

    python -m data_pipelines.align --corpus DIR

needs audio with texts, or with phones that have durations, which it makes better. It writes DIR/manifest.jsonl anew, or
the manifest --out, whose clips have phones with durations. A clip without them first gets those of espeak's speech of
the same words, stretched onto it (`durations.py`); a model of phones learns from these which features of Whisper-tiny
belong to which phone, and finds them anew, in several rounds. It prints in how many frames the model alone, without
knowing the text, hears the phone that is said to be there: few where the times are wrong.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float16, Int
from tqdm import tqdm

from data_pipelines.corpora import Clip, Corpus, Entry, Segment
from data_pipelines.corpora.folder import MANIFEST, write_manifest
from data_pipelines.corpora.opening import open_corpus
from data_pipelines.durations import Durations, aligned_phones
from data_pipelines.encoders.whisper import FRAMES_PER_SECOND, SAMPLE_RATE_HZ
from data_pipelines.phone_alignment import PhoneModel, aligned_by, fit_phone_model
from data_pipelines.streams import language_of
from data_pipelines.tokenizers.lexicon import with_durations
from data_pipelines.tokenizers.phone import PhoneTokenizer
from data_pipelines.tokenizers.phone_projection import phones_of_frames
from data_pipelines.tokenizers.semantic import SpeechEncoder, load_encoder, speech_features
from uniaudio_jax.cli import main_guard, parse, use_compile_cache

LAYER = 3
CLIPS_AT_ONCE = 32
MOST_SPEAKERS = 20  # of the table


@dataclass(frozen=True, kw_only=True)
class AlignOptions:
    """Find how long each phone of a corpus lasts."""

    corpus: str
    """FORMAT:PLACE or a path, as for the builder; clips need audio, and a text or phones with durations."""
    out: Path | None = None
    """The manifest to write (.jsonl), by default that of the corpus, which it replaces."""
    exact: tuple[str, ...] = ()
    """Speakers whose durations are right, such as those of espeak's voices; they teach the model and stay as they
    are."""
    rounds: int = 4
    """How often the model is fitted."""
    minutes: float = 120.0
    """Minutes of audio to fit it to, drawn from all clips; 0.14 GB of memory for each hour."""
    seed: int = 0
    """Seed of the draw."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or not 0 < self.minutes < float("inf") or self.seed < 0:
            raise ValueError(
                f"align: got rounds={self.rounds}, minutes={self.minutes}, seed={self.seed}; wanted at least 1 round, "
                "minutes above 0 and a seed of 0 or more"
            )
        if self.out is not None and self.out.suffix != ".jsonl":
            raise ValueError(f"--out: got {self.out}, wanted a name that ends in .jsonl")


class Spoken(NamedTuple):
    """A clip that is aligned."""

    speaker: str
    features: Float16[np.ndarray, "T D"]
    phones: Durations
    seconds: float


class Hits(NamedTuple):
    """Frames of a speaker, and those in which the model alone hears the phone that is said to be there."""

    frames: int = 0
    right: int = 0


class Aligner:
    """A model of phones for the clips of a corpus."""

    def __init__(self, corpus: Corpus, options: AlignOptions):
        self.corpus, self.options = corpus, options
        self.encoder: SpeechEncoder = load_encoder(layer=LAYER)
        self.tokenizer = PhoneTokenizer()
        self.left: list[str] = []
        """Why clips were left as they are."""

    def spoken(self, numbers: Iterable[int]) -> dict[int, Spoken]:
        """The clips with these numbers, with durations as the corpus has them, or else as espeak's speech has them.

        Clips that cannot be read or spoken are missing, and `left` tells why.
        """
        heard: dict[int, tuple[Clip, np.ndarray, Durations]] = {}
        for number in numbers:
            try:
                clip, wav = _heard(self.corpus, int(number))
                phones = clip.phones or aligned_phones(clip.text or "", language_of(clip), wav)
                with_durations(self.tokenizer, phones, FRAMES_PER_SECOND)  # refuses names that are no phones
            except ValueError as error:
                where = self.corpus.entries[int(number)].where
                self.left.append(f"{where}: {str(error).removeprefix(f'{where}: ')}")
            else:
                heard[int(number)] = clip, wav, phones
        features = speech_features(self.encoder, [wav for _, wav, _ in heard.values()])
        return {
            number: Spoken(clip.speaker or "", of_clip.astype(np.float16), phones, len(wav) / SAMPLE_RATE_HZ)
            for (number, (clip, wav, phones)), of_clip in zip(heard.items(), features, strict=True)
        }

    def fit(self, clips: list[Spoken]) -> tuple[PhoneModel, list[Spoken]]:
        """The model after all rounds, and the clips as it aligns them."""
        model = self.model(clips)
        for _ in tqdm(range(self.options.rounds), desc="rounds"):
            clips = [self.aligned(model, clip) for clip in clips]
            model = self.model(clips)
        return model, [self.aligned(model, clip) for clip in clips]

    def model(self, clips: list[Spoken]) -> PhoneModel:
        """Fitted to the durations that the clips have."""
        features = np.concatenate([clip.features for clip in clips]).astype(np.float32)
        return fit_phone_model(features, np.concatenate([self._phones(clip) for clip in clips]), self.tokenizer.size)

    def _phones(self, clip: Spoken) -> np.ndarray:
        return phones_of_frames(self.tokenizer, clip.phones, len(clip.features))

    def aligned(self, model: PhoneModel, clip: Spoken) -> Spoken:
        """The clip with the durations that the model finds."""
        if clip.speaker in self.options.exact:
            return clip
        features = clip.features.astype(np.float32)
        return clip._replace(phones=aligned_by(model, clip.phones, features, clip.seconds))

    def hits(self, model: PhoneModel, clips: Iterable[Spoken]) -> dict[str, Hits]:
        """By speaker."""
        found: dict[str, Hits] = {}
        for clip in clips:
            heard = model.log_likelihoods(clip.features.astype(np.float32)).argmax(axis=1)
            before, right = found.get(clip.speaker, Hits()), int(np.sum(heard == self._phones(clip)))
            found[clip.speaker] = Hits(before.frames + len(heard), before.right + right)
        return found


def _heard(corpus: Corpus, number: int) -> tuple[Clip, np.ndarray]:
    """A clip and its audio. Raises ValueError where it cannot be read, and without audio or both text and phones."""
    entry = corpus.entries[number]
    wanted = {name: segment for name, segment in entry.audio.items() if name == "audio"}
    clip = corpus.read(replace(entry, audio=wanted), SAMPLE_RATE_HZ)
    if clip.audio is None or (clip.text is None and clip.phones is None):
        raise ValueError(
            f"got {', '.join([*entry.audio, *entry.about])}, wanted audio, and text or phones with durations"
        )
    return clip, clip.audio


def _row(entry: Entry, phones: Durations | None, folder: Path) -> dict[str, Any]:
    """The fields of a line of the manifest in `folder`; phones of None leave the clip as it is."""
    row: dict[str, Any] = {"id": entry.id, "split": entry.split}
    for name, segment in entry.audio.items():
        if segment != Segment(path=segment.path):
            raise ValueError(
                f"{entry.where}: got a part of {segment.path}, wanted a whole file for each clip: a {MANIFEST} names "
                "whole files; cut the audio first"
            )
        path = segment.path.resolve()
        row[name] = str(path.relative_to(folder) if path.is_relative_to(folder) else path)
    return row | dict(entry.about) | ({"phones": phones} if phones else {})


def _manifest_of(options: AlignOptions) -> Path:
    """The manifest to write."""
    if options.out is not None:
        return options.out
    place = Path(options.corpus)
    if (place / MANIFEST).is_file():
        return place / MANIFEST
    raise ValueError(
        f"--out: got none and a corpus without {MANIFEST}, wanted the manifest to write; give --out FILE.jsonl"
    )


def _batches(numbers: Int[np.ndarray, " N"]) -> Iterator[list[int]]:
    for first in range(0, len(numbers), CLIPS_AT_ONCE):
        yield [int(number) for number in numbers[first : first + CLIPS_AT_ONCE]]


class Alignment(NamedTuple):
    """What was found."""

    phones: dict[int, Durations]
    """By the number of the clip; a clip that could not be aligned is missing."""
    at_first: dict[str, Hits]
    """Of the clips that the model was fitted to, by a model of their durations at first."""
    at_last: dict[str, Hits]
    left: list[str]
    """Why clips are missing."""


def align(corpus: Corpus, options: AlignOptions) -> Alignment:
    """Fits the model to some clips of the corpus and finds the durations of the phones of all.

    Raises ValueError where no clip can be aligned, or too few for a model.
    """
    aligner, entries = Aligner(corpus, options), corpus.entries
    batches = _batches(np.random.default_rng(options.seed).permutation(len(entries)))
    chosen: dict[int, Spoken] = {}
    with tqdm(total=len(entries), desc="clips", unit="clip") as bar:
        for numbers in batches:
            chosen |= aligner.spoken(numbers)
            bar.update(len(numbers))
            if sum(clip.seconds for clip in chosen.values()) >= 60 * options.minutes:
                break
        if not chosen:
            raise ValueError(f"{options.corpus}: got no clip that can be aligned; the first: {aligner.left[0]}")
        fitted = list(chosen.values())
        at_first = aligner.hits(aligner.model(fitted), fitted)
        model, aligned = aligner.fit(fitted)
        found = dict(zip(chosen, (clip.phones for clip in aligned), strict=True))
        for numbers in batches:
            found |= {number: aligner.aligned(model, clip).phones for number, clip in aligner.spoken(numbers).items()}
            bar.update(len(numbers))
    return Alignment(found, at_first, aligner.hits(model, aligned), aligner.left)


def table(hits: Sequence[dict[str, Hits]]) -> str:
    """Shares of hits at first and at last, a row for each speaker and one for all."""
    lines = [f"{'speaker':32} {'at first':>8} {'at last':>8}"]
    for speaker in (*sorted(hits[0])[:MOST_SPEAKERS], None):
        shares = []
        for of_speakers in hits:
            chosen = of_speakers.values() if speaker is None else [of_speakers[speaker]]
            shares.append(sum(hit.right for hit in chosen) / sum(hit.frames for hit in chosen))
        lines.append(f"{speaker or ('all' if speaker is None else '(none)'):32} {shares[0]:8.3f} {shares[1]:8.3f}")
    return "\n".join(lines)


def main(options: AlignOptions) -> None:
    """Aligns the corpus, writes the manifest and prints the hits."""
    manifest = _manifest_of(options)
    folder = manifest.parent.resolve()
    corpus = open_corpus(options.corpus)
    for entry in corpus.entries:
        _row(entry, None, folder)  # refuses before the work what could not be written after it
    found = align(corpus, options)
    rows = (_row(entry, found.phones.get(number), folder) for number, entry in enumerate(corpus.entries))
    write_manifest(manifest, rows)
    print(table([found.at_first, found.at_last]))
    print(f"{manifest}: {len(found.phones)} clips with the durations of their phones")
    if found.left:
        print(f"{manifest}: {len(found.left)} clips as they were; the first: {found.left[0]}")


if __name__ == "__main__":
    use_compile_cache()
    with main_guard():
        main(parse(AlignOptions, __doc__))
