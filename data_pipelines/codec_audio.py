"""Corpora as the audio of a codec's training: each is a domain."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from data_pipelines.corpora import Clip
from data_pipelines.corpora.opening import corpus_name, open_corpus
from uniaudio_jax.codec.audio_data import DomainClip
from uniaudio_jax.errors import Refused, attempt

TRAINED = ("audio", "noisy_audio")
"""The fields of a clip that a codec trains on, each as a clip of its own."""
HELDOUT_CLIPS = 16
"""The held-out clips of a domain that a codec is judged by, the first of them."""


def domain_clips(places: Iterable[str], sample_rate_hz: int) -> Iterator[DomainClip | Refused]:
    """The clips of corpora, each FORMAT:PLACE or a path, or why one cannot be used, in the order of the listings."""
    heldout: Counter[str] = Counter()
    for place in places:
        domain, corpus = corpus_name(place), open_corpus(place)
        for entry in corpus.entries:
            for name in [name for name in TRAINED if name in entry.audio]:
                is_heldout = entry.split == "heldout"
                if is_heldout and heldout[domain] == HELDOUT_CLIPS:
                    continue
                clip = attempt(corpus.read, replace(entry, audio={name: entry.audio[name]}), sample_rate_hz)
                if isinstance(clip, Refused):
                    yield clip
                    continue
                heldout[domain] += is_heldout
                words = english_words(clip) if name == "audio" else None
                yield DomainClip(domain, getattr(clip, name), is_heldout, words, bool(clip.converted))


def english_words(clip: Clip) -> str | None:
    """The words of a clip in English or in no stated language; None of one with labels, whose text is a caption."""
    is_english = clip.language is None or clip.language.lower().startswith("en")
    return clip.text if is_english and clip.labels is None else None
