"""Train a codec.

    python -m uniaudio_jax.codec.train configs/codec_tiny_16k.py --out RUN --steps 2000

Each corpus of the config, of any format that the builder reads, is a domain; a clip that cannot be read is named and
left out. Any field of the config can be given on the command line. The batch of a step is a function of (seed, step),
so a run that was stopped and resumed equals one that was not; SIGTERM and Ctrl-C save and exit with 0, or with 143 and
130 where nothing is saved. RUN/codec is the codec, RUN/reconstruction.md its table on held-out clips, and the sinks
show metrics, audio and spectrograms on the way.
"""

import json
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import multihost_utils
from tqdm import tqdm

from data_pipelines.codec_audio import domain_clips
from uniaudio_jax.audio.spectra import log_mel
from uniaudio_jax.checkpoint import Checkpoints
from uniaudio_jax.cli import main_guard, parse_with_config, use_compile_cache
from uniaudio_jax.codec.audio_data import Audio
from uniaudio_jax.codec.codec import Codec, open_codec
from uniaudio_jax.codec.config import CodecTrainConfig
from uniaudio_jax.codec.passports import codes_of
from uniaudio_jax.codec.storage import save_codec
from uniaudio_jax.codec.training import (
    State,
    codebook_report,
    initial_state,
    place_wav,
    start_codebooks,
    state_shardings,
    train_step,
)
from uniaudio_jax.config_files import to_dict
from uniaudio_jax.distributed import DistributedOptions, ProcessInfo, join
from uniaudio_jax.files import atomic_write, write_json
from uniaudio_jax.locks import hold_run
from uniaudio_jax.metrics.plots import draw_metrics
from uniaudio_jax.optim import SkippedInARow
from uniaudio_jax.reconstruction import markdown, reconstruction_table
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.sinks import Log
from uniaudio_jax.sinks.jsonl import FILE as METRICS
from uniaudio_jax.sinks.jsonl import read_metrics
from uniaudio_jax.stopping import Stop, StopOnSignal, exit_code

FREE_TO_CHANGE = (
    "steps",
    "save_every_steps",
    "log_every_steps",
    "most_skipped_updates",
    "keep_checkpoints",
    "sinks",
    "mesh",
)
"""Fields of the config that may differ between a run and its continuation."""
SHOWN_SECONDS = 4.0
"""How much of each domain's first held-out clip the sinks show."""
LAST_REPLACEMENT = 0.8
"""Share of the steps after which dead codes are no longer replaced, so that the last ones settle."""


@dataclass(frozen=True, kw_only=True)
class CodecTrainOptions:
    """Train the codec of a config file."""

    config: tyro.conf.Positional[Path]
    """A Python file whose get_config() returns a CodecTrainConfig."""
    out: Path
    """The run folder."""
    train: Annotated[CodecTrainConfig, tyro.conf.arg(name="")]
    licence: str = "Apache-2.0"
    """Licence of the weights, written into the codec's passport."""
    distributed: DistributedOptions = field(default_factory=DistributedOptions)


class CodecTrainer:
    """A codec's training: its state, audio, checkpoints and log."""

    def __init__(self, config: CodecTrainConfig, out: Path, audio: Audio, process: ProcessInfo, devices: Any = None):
        self.config, self.audio, self.process = config, audio, process
        self.mesh = make_mesh(config.mesh, devices)
        self.checkpoints = Checkpoints(out, config.keep_checkpoints)
        self.resumed_from = self.checkpoints.latest() or 0
        self.meta = {"config": json.loads(json.dumps(to_dict(config)))}
        self.state = self._start()
        self.log = Log(config.sinks, out, self.resumed_from, process.is_first)
        self.keys = jax.random.key(config.seed + 1)
        self.skipped = SkippedInARow(min(config.most_skipped_updates, config.steps))

    def _start(self) -> State:
        """The newest checkpoint's state, or a new one. Raises ValueError for a checkpoint of another config."""
        state = initial_state(self.config)
        state = jax.device_put(state, state_shardings(state, self.mesh))
        if not self.resumed_from:
            return state
        saved, wanted = self.checkpoints.read_meta()["config"], self.meta["config"]
        differ = [key for key in wanted if wanted[key] != saved.get(key) and key not in FREE_TO_CHANGE]
        if differ:
            sides = "; ".join(f"{key}: checkpoint {saved.get(key)}, this run {wanted[key]}" for key in differ)
            raise ValueError(
                f"{self.checkpoints.folder}: this checkpoint was made with another config ({sides}); choose another "
                "--out"
            )
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        return self.checkpoints.restore({"state": shapes})["state"]

    def run(self, stop: Stop) -> State:
        """Trains to the last step or to a signal; the state is saved either way.

        On the way nothing is saved after a skipped update, so that a training that goes wrong does not push out the
        checkpoints from before. Raises ValueError, without saving, when too many updates in a row were skipped.
        """
        config, step, saved = self.config, self.resumed_from, self.resumed_from
        with self._bar(step) as bar, closing(self.log), closing(self.checkpoints):
            while step < config.steps and not stop.before(step):
                metrics = self._step(step)
                self.skipped.add(metrics.pop("skipped"))
                step += 1
                bar.update()
                if step % config.log_every_steps == 0 or step == config.steps:
                    self._report(step, metrics, bar)
                if step % config.save_every_steps == 0 and not self.skipped.in_a_row():
                    self._save(step)
                    saved = step
            if step != saved:
                self._save(step)
        return self.state

    def _bar(self, step: int) -> tqdm:
        steps, hidden = self.config.steps, not self.process.is_first
        return tqdm(total=steps, initial=step, desc="codec", unit="step", mininterval=2, disable=hidden)

    def _step(self, step: int) -> dict[str, jax.Array]:
        """One update, whose number decides which parts take part."""
        config = self.config
        if step == config.warmup_steps and config.start_from is None:
            self.state = start_codebooks(self.state, config, self.audio, self.mesh)
        quantised = step >= config.warmup_steps
        since_start = step - config.warmup_steps + 1
        is_due = since_start % config.dead_code_every_steps == 0 and step < LAST_REPLACEMENT * config.steps
        self.state, metrics = train_step(
            self.state,
            place_wav(self.audio.batch(config, 0, step), self.mesh),
            jax.random.fold_in(self.keys, step),
            jnp.asarray(quantised and is_due),
            config=config,
            mesh=self.mesh,
            quantised=quantised,
            adversarial=config.adversarial is not None and step >= config.adversarial.start,
        )
        return metrics

    def _report(self, step: int, metrics: dict[str, jax.Array], bar: tqdm) -> None:
        report = {name: float(value) for name, value in metrics.items()}
        bar.set_postfix({name: f"{report[name]:.3g}" for name in ("loss", "mel")})
        report["skipped_updates"] = int(self.state["skipped"])
        if step > self.config.warmup_steps and not self.config.decoder_only:
            report |= codebook_report(self.state)
        self.log.scalars(step, report)
        self.skipped.check(step, f"loss {report['loss']:.4g}, gradient norm {report['gradient_norm']:.4g}")

    def _save(self, step: int) -> None:
        self.checkpoints.save(step, {"state": self.state}, self.meta)
        # Pictures need every host's part of the weights, so several hosts go without them.
        if step > self.config.warmup_steps and self.process.count == 1:
            show_clips(self.log, self.config, self.audio, step, self.state)


def show_clips(log: Log, config: CodecTrainConfig, audio: Audio, step: int, state: State) -> None:
    """Logs one held-out clip of each domain through the codec, as audio and as a spectrogram below the original's."""
    codec, rate = Codec(config.codec, codec_params(state)), config.codec.sample_rate_hz
    clips = {domain: clips[0][: round(SHOWN_SECONDS * rate)] for domain, clips in audio.heldout.items()}
    levels = min(config.main_codebooks, codec.codebooks)
    codes = codec.encode_many(list(clips.values()), levels)
    wavs = codec.decode_many(codes, [len(clip) for clip in clips.values()])
    for (domain, clip), wav in zip(clips.items(), wavs, strict=True):
        log.audio(step, f"{domain}/{levels}_codebooks", wav, rate)
        log.image(step, f"{domain}/original_above_{levels}_codebooks", spectrograms(clip, wav, rate))


def spectrograms(clip: np.ndarray, wav: np.ndarray, rate_hz: int) -> np.ndarray:
    """Log-mel spectrograms of the two, one above the other, low bands below: [rows, frames] of 0 to 255."""
    both = jnp.asarray(np.stack([clip, wav]))
    mels = np.asarray(log_mel(both, sample_rate_hz=rate_hz, window_samples=1024, hop_samples=256, bands=80))
    tall = np.concatenate([mel.T[::-1] for mel in mels])
    return np.clip((tall + 11.5) / 11.5 * 255, 0, 255).astype(np.uint8)


def codec_params(state: State) -> dict:
    """What `save_codec` stores: the module's parameters and the codebooks, whole and on this host."""
    parts = {**state["params"], "quantizer": {"codebooks": state["statistics"]["codebooks"]}}
    return multihost_utils.process_allgather(parts, tiled=True) if jax.process_count() > 1 else jax.device_get(parts)


def finish(config: CodecTrainConfig, params: dict, audio: Audio, out: Path, facts: dict[str, Any]) -> Path:
    """Writes the codec to OUT/codec and its reconstruction table beside it; returns the codec's folder."""
    folder = out / "codec"
    sha256 = save_codec(folder, config.codec, params, facts)
    if audio.heldout:
        table = reconstruction_table(Codec(config.codec, params, facts, sha256), audio)
        write_json(out / "reconstruction.json", table)
        with atomic_write(out / "reconstruction.md") as partial:
            partial.write_text(markdown(table))
        print(markdown(table))
    draw_curve(out)
    return folder


def draw_curve(out: Path) -> Path | None:
    """Writes OUT/curve.png, losses and, where codebooks were trained, their perplexity by step.

    Returns None without a metrics.jsonl, or without matplotlib, an optional extra.
    """
    lines = read_metrics(out / METRICS)
    perplexities = sorted({key for line in lines for key in line if key.startswith("perplexity")})
    panels = {"loss": ("mel", "magnitude")} | ({"perplexity": perplexities} if perplexities else {})
    return draw_metrics(out / "curve.png", lines, panels) if lines else None


def passport_facts(options: CodecTrainOptions, audio: Audio) -> dict[str, Any]:
    """What the codec's passport says of its training."""
    config = options.train
    domains = ", ".join(audio.domains)
    facts: dict[str, Any] = {"trained_on": f"{audio.minutes:.0f} minutes in {domains}", "trained_steps": config.steps}
    if config.start_from:
        facts["started_from"] = config.start_from
        if config.decoder_only:
            facts["codes_of"] = codes_of(open_codec(config.start_from).passport())
    return facts | {"licence": options.licence}


def main() -> None:
    with main_guard():
        options = parse_with_config(CodecTrainOptions, "train", "codec_tiny_16k.py", __doc__)
        use_compile_cache()
        process = join(options.distributed, options.out, options.train)
        stop = StopOnSignal(process.count)
        with hold_run(options.out, process):
            train(options, process, stop)


def train(options: CodecTrainOptions, process: ProcessInfo, stop: Stop) -> None:
    """Trains, and finishes the codec unless a signal came."""
    start, config, rate_hz = time.monotonic(), options.train, options.train.codec.sample_rate_hz
    audio = Audio(domain_clips(config.audio, rate_hz), rate_hz)
    audio.check_trainable()
    trainer = CodecTrainer(config, options.out, audio, process)
    if process.is_first:
        heldout = {name: len(clips) for name, clips in audio.heldout.items()}
        print(
            f"{audio.minutes:.1f} minutes in {len(audio.train)} clips ({audio.converted} converted, "
            f"{audio.refused} left out), held out: {heldout}"
        )
    params = codec_params(trainer.run(stop))
    if process.is_first and stop.asked_by:
        saved = f"and saved: {options.out}/checkpoints" if trainer.checkpoints.latest() else "before the first step"
        print(f"stopped by {stop.asked_by} {saved}; run it again to go on")
    elif process.is_first:
        folder = finish(config, params, audio, options.out, passport_facts(options, audio))
        skipped = int(trainer.state["skipped"])
        print(
            f"codec: {folder} after {(time.monotonic() - start) / 60:.1f} minutes, {skipped} updates skipped for a "
            "loss or gradient that was not finite"
        )
    if stop.asked_by and not trainer.checkpoints.latest():
        raise SystemExit(exit_code(stop.asked_by))


if __name__ == "__main__":
    main()
