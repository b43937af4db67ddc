"""How far an exported folder's own code and weights are from the run that they were made of, as a JSON beside them.

The folder's modules are loaded from its files, as a user's program loads them, and compared with JAX: logits of random
and of held-out sequences, greedy generation, and the codec's waveforms.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

import uniaudio_jax
from uniaudio_jax.decoding import Prompt
from uniaudio_jax.export.staging import CERTIFICATE
from uniaudio_jax.export.vocabulary import is_possible
from uniaudio_jax.files import file_sha256, read_json
from uniaudio_jax.run import Run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sequence import Batch, Frames, empty_streams, pack, to_frames, to_prefix, unscored
from uniaudio_jax.tasks import TASKS, Task, get_task
from uniaudio_jax.vocab import CONTINUOUS

TOLERANCE = 1e-4
"""The most that logits may differ, and samples of a waveform; a greedy token may be another where the logits of the two
differ by less than twice as much."""
RANDOM_SEQUENCES, RANDOM_FRAMES = 4, 48
GREEDY_FRAMES = 200
CODEC_FRAMES = 50

Example = tuple[Task, dict[str, np.ndarray]]


class Heldout(NamedTuple):
    """Examples of a run's held-out data, each its task and streams, or the reason that there are none."""

    examples: Sequence[Example] = ()
    absent: str = ""


class Exported(Protocol):
    """What an exported folder's own files compute."""

    @property
    def runtime(self) -> str:
        """The name of what computes it."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Those of the packages that it needs, or was made with."""
        ...

    @property
    def decode(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """What makes the waveform of codes, where the folder has a codec."""
        ...

    def logits(self, batch: Batch) -> np.ndarray:
        """Logits [B, T, Q, V] of packed rows."""
        ...

    def greedy(self, task: Task, streams: Mapping[str, np.ndarray], prefix: Frames, frames: int) -> np.ndarray:
        """The most likely codes [frames, Q] after a task's conditions, which are `prefix` as frames."""
        ...


def module_of(path: Path) -> Any:
    """The module of a file, whose folder gets no compiled copy of it."""
    module = ModuleType(f"exported_{path.stem}")
    exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    return module


def certificate_of(run: Run, folder: Path, theirs: Exported, heldout: Heldout) -> dict[str, Any]:
    """What is measured of a folder, beside the sha256 of each of its files."""
    real: dict[str, Any] = {"absent": heldout.absent}
    if heldout.examples:
        tasks = [task.name for task, _ in heldout.examples]
        real = {"tasks": tasks, "largest_difference": logits_difference(run, theirs, real_batch(run, heldout))}
    random = {"sequences": RANDOM_SEQUENCES, "largest_difference": logits_difference(run, theirs, random_batch(run))}
    return {
        "run": run.config.name,
        "step": run.step,
        "runtime": theirs.runtime,
        "tolerance": TOLERANCE,
        "logits_of_random_sequences": random,
        "logits_of_heldout_examples": real,
        "greedy": compare_greedy(run, theirs, heldout),
        "waveforms": compare_waveforms(run, theirs, heldout),
        "versions": {
            "uniaudio_jax": uniaudio_jax.__version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            **theirs.versions,
            "python": platform.python_version(),
        },
        "sha256": {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()},
    }


def faults_of(certificate: dict[str, Any]) -> list[str]:
    """What a certificate says against its folder, a phrase for each measure beyond the tolerance."""
    faults = []
    for name in ("logits_of_random_sequences", "logits_of_heldout_examples", "waveforms"):
        difference = certificate[name].get("largest_difference", 0.0)
        if not difference < TOLERANCE:
            faults.append(f"{name.replace('_', ' ')} differ by {difference:.1e}")
    equal, apart = (certificate["greedy"].get(name, 1.0) for name in ("equal_tokens", "logits_apart"))
    if equal < 1 and not apart < 2 * TOLERANCE:
        faults.append(f"greedy tokens differ ({equal:.3f} are equal)")
    return faults


def random_batch(run: Run) -> Batch:
    """Rows of random ids of every kind, text vectors among them."""
    model, rng = run.config.model, np.random.default_rng(0)
    rows, frames = RANDOM_SEQUENCES, min(RANDOM_FRAMES, model.context_frames)
    tokens = rng.integers(2, model.vocabulary_size, (rows, frames, model.codebooks), np.int32)
    tokens[:, 3:7] = CONTINUOUS
    texts = tokens[:, 3:7].shape[1]
    slots = np.full((rows, frames), -1, np.int32)
    slots[:, 3:7] = np.arange(texts)
    vectors = rng.normal(size=(rows, max(texts, 1), model.text_width)).astype(np.float32)
    positions = np.tile(np.arange(frames, dtype=np.int32), (rows, 1))
    return unscored(tokens, np.ones((rows, frames), np.int32), positions, slots, vectors)


def real_batch(run: Run, heldout: Heldout) -> Batch:
    """One row of all held-out examples."""
    frames = [_frames(run, *example) for example in heldout.examples]
    length, texts = (sum(len(getattr(each, field)) for each in frames) for field in ("tokens", "text_vectors"))
    row = pack(frames, length, length, max(texts, 1), "all")
    return Batch(*(field[None] for field in row))


def _frames(run: Run, task: Task, streams: dict[str, np.ndarray]) -> Frames:
    return to_frames(task, streams, run.vocabulary, run.config.model.text_width)


def logits_difference(run: Run, theirs: Exported, batch: Batch) -> float:
    """The largest difference between our logits and the folder's."""
    ours = np.asarray(jax.jit(run.definition.logits)(run.params, batch))
    return float(np.abs(ours - theirs.logits(batch)).max())


def compare_greedy(run: Run, theirs: Exported, heldout: Heldout) -> dict[str, Any]:
    """The share of equal tokens of greedy generation from one prompt, of a held-out example where there is one, and how
    far the logits of the first two that differ are apart."""
    model = run.config.model
    named = [example for example in heldout.examples if example[0].makes_audio]
    tasks = [task for task in map(get_task, [*run.config.data.tasks, *TASKS]) if task.makes_audio]
    tasks = [task for task in tasks if is_possible(task, run.vocabulary)]
    if not tasks:
        return {"absent": "the model has no ids for a task that makes audio"}
    task, streams = named[0] if named else (tasks[0], {})
    streams = {**empty_streams(task.conditions, run.vocabulary, model.text_width), **streams}
    prefix = to_prefix(task, streams, run.vocabulary, model.text_width)
    frames = min(GREEDY_FRAMES, model.context_frames - len(prefix.tokens))
    greedy = Sampling(temperature=0, min_frames=frames)
    ((_, ours),) = run.results(task.name, [Prompt(0, prefix, frames)], greedy)
    others = theirs.greedy(task, streams, prefix, frames)
    equal = ours == others
    apart = 0.0 if equal.all() else _apart(run, prefix, ours, others)
    return {"task": task.name, "frames": frames, "equal_tokens": float(equal.mean()), "logits_apart": apart}


def _apart(run: Run, prefix: Frames, ours: np.ndarray, others: np.ndarray) -> float:
    """The difference of the logits of the first tokens that differ: nearly none where both were as likely."""
    starts = np.array([run.vocabulary.level(level).start for level in range(ours.shape[1])])
    frame, level = np.argwhere(ours != others)[0]
    tokens = np.concatenate([prefix.tokens, ours[: frame + 1] + starts])[None]
    logits = run.logits(tokens, prefix.text_vectors[None] if len(prefix.text_vectors) else None)[0, -1, level]
    one, other = (logits[int(codes[frame, level] + starts[level])] for codes in (ours, others))
    return float(abs(one - other))


def compare_waveforms(run: Run, theirs: Exported, heldout: Heldout) -> dict[str, Any]:
    """The largest difference of the waveforms of random codes, and of held-out ones where there are some."""
    if theirs.decode is None:
        return {"absent": "the folder has no codec"}
    shape = (CODEC_FRAMES, run.config.model.codebooks)
    codes = [np.random.default_rng(0).integers(0, run.config.model.entries, shape)]
    codes += [streams[task.target.key] for task, streams in heldout.examples if task.makes_audio]
    differences = [np.abs(run.codec.decode(each) - theirs.decode(each)).max() for each in codes]
    return {"clips": len(codes), "largest_difference": float(max(differences))}


def read_certificate(folder: Path) -> dict[str, Any]:
    """The certificate of a folder. Raises ValueError where there is none, or a file is not the one that it is of."""
    wanted = "the certificate of an export; export again where PyTorch is installed"
    certificate = read_json(folder / CERTIFICATE, wanted, ("sha256",))
    for name, sha256 in certificate["sha256"].items():
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: no such file, which the certificate names; copy the whole folder again")
        if (got := file_sha256(folder / name)) != sha256:
            raise ValueError(
                f"{folder / name}: got sha256 {got[:12]}…, the certificate was made of {str(sha256)[:12]}…; copy the "
                "folder again, or export again"
            )
    return certificate
