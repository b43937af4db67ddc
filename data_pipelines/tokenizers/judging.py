"""How well semantic units tell what is said, whoever says it: held-out sentences in several voices."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import soxr
from jaxtyping import Float, Int16
from rapidfuzz.distance import Levenshtein

from data_pipelines import espeak
from data_pipelines.durations import lengths_of
from data_pipelines.encoders.whisper import SAMPLE_RATE_HZ
from data_pipelines.synthetic.piper import find_piper, piper_speech
from data_pipelines.synthetic.sentences import sentence
from data_pipelines.tokenizers.phone import PhoneTokenizer
from data_pipelines.tokenizers.phone_projection import phones_of_frames
from data_pipelines.tokenizers.semantic import Clusters, SpeechEncoder, speech_features, without_repeats

VOICES = ("en-us+m1", "en-us+m3", "en-us+Alex", "en-us+f4", "en-us+Annie", "en-us+belinda")
SENTENCES, PEAK = 24, 0.7


def speeches() -> dict[str, list[Float[np.ndarray, " S"]]]:
    """The same held-out sentences in each of the judge's voices, and in "piper" where Piper is installed."""
    texts = _judged_texts()
    spoken = {voice: [espeak.speak(text, voice) for text in texts] for voice in VOICES}
    if piper := find_piper():
        spoken["piper"] = piper_speech(piper, texts, seed=0)
    return {
        voice: [_at_peak(soxr.resample(wav, rate, SAMPLE_RATE_HZ)) for wav, rate in clips]
        for voice, clips in spoken.items()
    }


def _judged_texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [sentence(rng, "heldout") for _ in range(SENTENCES)]


def _at_peak(wav: np.ndarray) -> np.ndarray:
    return (wav * (PEAK / np.abs(wav).max())).astype(np.float32)


def judge(encoder: SpeechEncoder, clusters: Clusters) -> dict[str, float]:
    """How well units tell what is said, whoever says it: 0 to 1 each.

    phones: see `phones_across_voices`. Then mean edit distances between unit sequences without repeats, divided by the
    longer one's length. same_sentence: between two espeak voices. same_sentence_piper: between an espeak voice and
    Piper's, a different engine (only where Piper is installed). other_sentence: between two sentences in one espeak
    voice.
    """
    found = {
        voice: [clusters.nearest(features) for features in speech_features(encoder, wavs)]
        for voice, wavs in speeches().items()
    }
    units = {voice: [without_repeats(ids).tolist() for ids in of_voice] for voice, of_voice in found.items()}
    pairs = {
        "same_sentence": [
            pair
            for first, second in itertools.combinations(VOICES, 2)
            for pair in zip(units[first], units[second], strict=True)
        ],
        "other_sentence": [pair for voice in VOICES for pair in itertools.combinations(units[voice], 2)],
    }
    if "piper" in units:
        pairs["same_sentence_piper"] = [
            pair for voice in VOICES for pair in zip(units[voice], units["piper"], strict=True)
        ]
    return {"phones": phones_across_voices(found, len(clusters.centroids))} | {
        name: float(np.mean([Levenshtein.normalized_distance(a, b) for a, b in sequences]))
        for name, sequences in pairs.items()
    }


def phones_across_voices(units: Mapping[str, Sequence[Int16[np.ndarray, " T"]]], clusters: int) -> float:
    """The share of the frames of espeak's voices whose phone is the one that their unit most often stands for in the
    other voices. units: of the judge's sentences, in their order."""
    tokenizer, texts = PhoneTokenizer(), _judged_texts()
    counts = np.zeros((len(VOICES), clusters, tokenizer.size), int)
    for of_voice, voice in zip(counts, VOICES, strict=True):
        for text, ids in zip(texts, units[voice], strict=True):
            said = espeak.speak_with_phones(text, voice)
            lengths = lengths_of(said.phones, len(said.samples) / said.sample_rate_hz)
            np.add.at(of_voice, (ids, phones_of_frames(tokenizer, lengths, len(ids))), 1)
    meant = (counts.sum(axis=0) - counts).argmax(axis=2)
    right = np.take_along_axis(counts, meant[..., None], axis=2)
    return float(right.sum() / counts.sum())
