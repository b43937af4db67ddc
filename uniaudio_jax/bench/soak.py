"""A training that is killed again and again comes out as if nothing had happened.

It goes on in 4, then 2, then 1 processes. A random one, or all of them, get SIGKILL at random times of start-up,
restore, steps and saves, while other processes open the run all the time. What it logged of each step and its weights
are then compared to the bit with those of trainings with as many processes that nobody killed, and within
TOLERANCE with those of one process. The run folders and logs are left in OUT/soak.
"""

import contextlib
import hashlib
import io
import json
import multiprocessing
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from data_pipelines.batches import open_training_data
from data_pipelines.builder import BuilderOptions, build
from data_pipelines.corpora.opening import open_corpus
from data_pipelines.plan import Plan
from data_pipelines.streams import Tokenizers
from data_pipelines.synthetic import corpus as synthetic
from data_pipelines.synthetic.corpus import SyntheticOptions
from uniaudio_jax.bench.lives import LONGEST_PAUSE_SECONDS, PHASES, Life, Training, patience
from uniaudio_jax.bench.options import BenchOptions
from uniaudio_jax.checkpoint import FOLDER, Checkpoints, one_device
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config_files import CONFIGS
from uniaudio_jax.run import load_run

CODEC, TASKS = "tiny_16k", ("plain_tts", "enhancement")
PROCESSES = {4: 0.2, 2: 0.6, 1: 1.0}
"""How many processes train, one after the other, and the share of the kills by the end of each: four start slowly."""
READERS, READER_PAUSE_SECONDS = 2, 0.3
SAVE_EVERY_STEPS, ROWS = 5, 4
SPEEDS = {"frames_per_second", "model_flop_utilisation"}
"""What is logged that may differ from run to run."""
TOLERANCE = 1e-5
"""Of a loss, relative, between different numbers of processes."""
SMALL = f"""{CONFIGS / "base.py"} --codec {CODEC} --data.tasks plain_tts 1 enhancement 1 --data.rows {ROWS}
    --data.row-frames 384 --data.target-frames 192 --model.context-frames 384
    --model.global-stack.layers 1 --model.global-stack.width 24 --model.global-stack.heads 2
    --model.local-stack.layers 1 --model.local-stack.width 24 --model.local-stack.heads 2
    --train.log-every-steps 1 --train.peak-tflops 1
    --train.sinks jsonl --train.global-remat none --optim.warmup-steps 5"""
"""The options of a training whose steps take milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Options(BenchOptions):
    """A small training that is killed at random, beside one that is not."""

    kills: int = 30
    """How often it is killed."""
    steps: int = 300
    """Its steps."""
    seed: int = 0
    """Of the times of the kills, and of the processes that get them."""

    def __post_init__(self):
        kills, steps = len(PROCESSES), 2 * SAVE_EVERY_STEPS
        if self.kills < kills or self.steps < steps:
            raise ValueError(
                f"--kills {self.kills} --steps {self.steps}: wanted at least {kills} kills, one for each number of "
                f"processes, and {steps} steps"
            )


class Soak:
    """The killed run, what happened to it, and what was not as it should be."""

    def __init__(self, options: Options, folder: Path):
        words = f"{SMALL} --data.root {folder / 'tokens'} --train.save-every-steps {SAVE_EVERY_STEPS}"
        self.words = (*words.split(), "--train.steps", str(options.steps))
        self.options, self.folder = options, folder
        self.training = self.make("killed")
        self.rng = np.random.default_rng(options.seed)
        self.kills: Counter[str] = Counter()
        self.lives = self.repeated = 0
        self.ended_after: list[float] = []
        self.openings: list[dict[str, Any]] = []
        self.digests: dict[int, str] = {}
        self.apart = {"numbers": 0.0, "weights": 0.0, "losses to one process": 0.0}
        self.faults: list[str] = []

    def make(self, name: str, *more: str) -> Training:
        return Training(self.folder / name, self.words + more, self.folder / "cache")

    def run(self) -> None:
        """All kills, the end of the training, and the comparison with those that were not killed."""
        alone = self.make("alone")
        Life(alone, 1, 0).finish()
        shares = np.diff([0, *(round(share * self.options.kills) for share in PROCESSES.values())])
        with tqdm(total=self.options.kills, desc="soak", unit="kill") as bar, reading(self.training.out) as openings:
            for processes, kills in zip(PROCESSES, shares, strict=True):
                begin = self.training.saved()
                rival = self.make(f"whole_{processes}", "--train.keep-checkpoints", str(self.options.steps))
                if begin:
                    ignored = shutil.ignore_patterns("*tmp*", "logs")
                    shutil.copytree(self.training.out, rival.out, ignore=ignored)
                for number in range(kills):
                    self._kill(processes, number == kills - 1, bar)
                if self.kills.total() == self.options.kills:
                    self._life(processes).finish()
                self._compare(rival, processes, begin)
        self._compare_losses(alone)
        self.openings = [json.loads(line) for path in openings for line in path.read_text().splitlines()]
        self._judge_openings()

    def _life(self, processes: int) -> Life:
        self.lives += 1
        return Life(self.training, processes, self.lives)

    def _kill(self, processes: int, last: bool, bar: tqdm) -> None:
        """One life and its end; the last one of so many processes passes a checkpoint, and ends for all of them."""
        rng, training = self.rng, self.training
        aim = "saved" if last else str(rng.choice(PHASES))
        everyone = last or processes == 1 or rng.random() < 0.5
        victims = list(range(processes)) if everyone else [int(rng.integers(processes))]
        life = self._life(processes)
        try:
            life.reach(aim, int(rng.integers(2 * SAVE_EVERY_STEPS)))
            time.sleep(rng.uniform(0, LONGEST_PAUSE_SECONDS[aim]))
            phase = life.phase()
            self.ended_after.append(life.kill(victims))
        finally:
            life.end()
        self.kills[f"{phase} of {'all' if everyone else 'one'}"] += 1
        self.repeated += max(0, training.last_step() - training.saved())
        bar.set_postfix_str(f"{processes} processes, {phase}, step {training.last_step()}")
        bar.update()

    def _compare(self, rival: Training, processes: int, begin: int) -> None:
        """Trains on from where so many processes began, without a kill, and compares up to where they ended."""
        end = self.training.saved()
        life = Life(rival, processes, 0)
        try:
            for _ in patience(0.05):
                if rival.saved() >= end or life.has_ended():
                    break
            if end < self.options.steps:
                life.processes[0].send_signal(signal.SIGTERM)
            life.finish()
        finally:
            life.end()
        ours, theirs = self.training.steps(), rival.steps()
        for step in range(begin + 1, end + 1):
            for name in (ours[step].keys() | theirs[step].keys()) - SPEEDS:
                self._note("numbers", f"step {step}, {name}", ours[step].get(name), theirs[step].get(name))
        shapes = load_run(rival.out).definition.shapes()
        leaves = [jax.tree.leaves(weights(run, end, shapes)) for run in (self.training, rival)]
        for number, (one, other) in enumerate(zip(*leaves, strict=True)):
            largest = float(np.max(np.abs(one.astype(np.float64) - other)))
            self._note("weights", f"step {end}, weights {number}", largest, 0.0)
        for step in range(begin + 1, end + 1):
            if (rival.out / FOLDER / str(step)).exists():
                self.digests[step] = digest(weights(rival, step, shapes))

    def _note(self, what: str, where: str, ours: float | None, wanted: float | None) -> None:
        """Notes how far apart two values are that should be equal to the bit."""
        if ours != wanted:
            self.apart[what] = max(self.apart[what], abs((ours or 0.0) - (wanted or 0.0)))
            self.faults.append(f"{what}: {where}: {ours}, without kills {wanted}")

    def _compare_losses(self, alone: Training) -> None:
        """Each step was logged, and its loss is near that of one process."""
        ours, theirs = self.training.steps(), alone.steps()
        if sorted(ours) != list(range(1, self.options.steps + 1)):
            self.faults.append(f"steps: {len(ours)} of {self.options.steps} are logged")
        for step in ours.keys() & theirs.keys():
            one, other = ours[step]["loss/all"], theirs[step]["loss/all"]
            apart = abs(one - other) / other
            self.apart["losses to one process"] = max(self.apart["losses to one process"], apart)
            if not apart <= TOLERANCE:
                self.faults.append(f"step {step}: loss {one}, of one process {other}")

    def _judge_openings(self) -> None:
        """Each reader got weights that were saved, and a plan that goes on with the next step's examples."""
        planned, anchored = (self._open_data() for _ in range(2))
        for opening in self.openings:
            step = opening.get("step")
            if step is None or self.digests.get(step, "") != opening["sha256"]:
                self.faults.append(f"reader: {opening}")
                continue
            anchored.start_at(opening["plan"])
            rows = range(step * ROWS, (step + SAVE_EVERY_STEPS) * ROWS)
            if [anchored.row(row) for row in rows] != [planned.row(row) for row in rows]:
                self.faults.append(f"step {step}: the plan goes on with other examples")

    def _open_data(self) -> Plan:
        """The plan of the run's rows, from the first one on."""
        run = load_run(self.training.out)
        model, train = run.config.model, run.config.train
        data = open_training_data(
            run.config.data, train.loss_on, model.ids, model.text_width, run.codec.passport(), 0, 1
        )
        return data.rows.plan


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[list[Path]]:
    """Lets READERS processes open a run all the time; yields the files that they write a line to for each opening."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    files = [folder.parent / f"reader_{number}.jsonl" for number in range(READERS)]
    readers = [context.Process(target=read_on, args=(folder, file, stop)) for file in files]
    for reader in readers:
        reader.start()
    try:
        yield files
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def read_on(folder: Path, file: Path, stop: Any) -> None:
    """Opens the run again and again, once it holds a checkpoint, and writes what it found."""
    jax.config.update("jax_platforms", "cpu")
    training = Training(folder, (), folder)
    with file.open("w") as lines:
        while not stop.wait(READER_PAUSE_SECONDS):
            if training.saved():
                lines.write(json.dumps(opening_of(folder)) + "\n")


def opening_of(folder: Path) -> dict[str, Any]:
    """What a reader finds: the step, the digest of the weights and the place in the plan; or the error."""
    try:
        run = load_run(folder)
        sha256 = digest(jax.device_get(run.params))  # read first: it settles the step
        return {"step": run.step, "sha256": sha256, "plan": run.meta["plan"]}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def weights(training: Training, step: int, shapes: Any) -> Any:
    """The weights of a checkpoint."""
    checkpoints = Checkpoints(training.out)
    params = checkpoints.restore({"params": one_device(shapes)}, step)["params"]
    checkpoints.close()
    return jax.device_get(params)


def digest(params: Any) -> str:
    """The hash of all weights."""
    sha256 = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        sha256.update(np.ascontiguousarray(leaf).tobytes())
    return sha256.hexdigest()


def write_tokens(folder: Path) -> None:
    """Tokens of a minute of espeak speech."""
    with contextlib.redirect_stdout(io.StringIO()):
        speech = folder / "corpus" / "speech"
        synthetic.main(SyntheticOptions(out=speech.parent, minutes=2.0, domain=("speech",), voices="espeak"))
        settings = BuilderOptions(corpus=(str(speech),), task=TASKS, out=folder / "tokens", codec=CODEC)
        (named,) = settings.corpora
        build(settings, named, open_corpus(named.place), Tokenizers(load_codec(CODEC)))


def run(options: Options) -> dict[str, Any]:
    """The kills by phase and by victims, what they cost, the largest differences, and all faults."""
    folder, start = (options.out / "soak").resolve(), time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    write_tokens(folder)
    soak = Soak(options, folder)
    try:
        soak.run()
    except ValueError as error:
        soak.faults.append(str(error))
    return {
        "kills": dict(sorted(soak.kills.items())),
        "starts": soak.lives,
        "steps": soak.training.last_step(),
        "repeated steps": soak.repeated,
        "most seconds that a process went on without another": max(soak.ended_after, default=0.0),
        "openings by readers": len(soak.openings),
        "failed openings": sum("error" in opening for opening in soak.openings),
        "largest differences": soak.apart,
        "seconds": round(time.monotonic() - start),
        "faults": soak.faults,
    }
