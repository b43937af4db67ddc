"""Trains a codec: `python -m uniaudio_jax.codec.train configs/codec_tiny_16k.py --out RUN [--steps 2000 …]`.

Any field of the config can be given as an option. The batch of a step is a function of (seed, step), so a run that was
stopped and resumed equals one that was not. `RUN/codec` is the codec, `RUN/reconstruction.md` its table on held-out
clips, `RUN/tensorboard` the way there, with audio and spectrograms.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tqdm
import tyro
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from uniaudio_jax import cli
from uniaudio_jax.audio.spectra import log_mel
from uniaudio_jax.codec.audio_data import Audio
from uniaudio_jax.codec.codec import Codec
from uniaudio_jax.codec.config import CodecTrainConfig
from uniaudio_jax.codec.reconstruction import markdown, reconstruction_table
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
from uniaudio_jax.config import load_config, to_dict
from uniaudio_jax.distributed import DistributedOptions, join
from uniaudio_jax.metrics.plots import draw_metrics
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.tensorboard import open_board

LOG = "metrics.jsonl"
FREE_TO_CHANGE = ("steps", "save_every_steps", "log_every_steps", "mesh")  # between a run and its continuation
SHOWN_SECONDS = 4.0  # of each domain's first held-out clip, in TensorBoard


def _manager(out: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    return ocp.CheckpointManager((out / "checkpoints").resolve(), options=options)


def _restore(manager: ocp.CheckpointManager, config: CodecTrainConfig, mesh: Mesh, out: Path) -> tuple[int, State]:
    """(next step, state): the last checkpoint's, or a new one. A checkpoint of another config is refused."""
    state = initial_state(config)
    state = jax.device_put(state, state_shardings(state, mesh))
    latest = manager.latest_step()
    if latest is None:
        return 0, state
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    meta = manager.restore(latest, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    wanted = json.loads(json.dumps(to_dict(config)))
    differ = [key for key in wanted if wanted[key] != meta["config"].get(key) and key not in FREE_TO_CHANGE]
    if differ:
        sides = "; ".join(f"{key}: checkpoint {meta['config'].get(key)}, this run {wanted[key]}" for key in differ)
        raise ValueError(f"{out}: its checkpoint was made with another config ({sides}); choose another --out")
    saved = manager.restore(latest, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]
    return latest, saved


Report = Callable[[int, dict[str, float]], None]
Show = Callable[[int, State], None]


def train(
    config: CodecTrainConfig,
    out: Path,
    audio: Audio,
    report: Report = lambda *_: None,
    show: Show = lambda *_: None,
    devices: Any = None,
) -> State:
    """The trained state, from the last checkpoint in `out` or from the start.

    `report` gets (step, metrics) as often as the config logs, `show` gets (step, state) at every checkpoint. devices:
    those of the mesh, all by default.
    """
    manager, mesh = _manager(out), make_mesh(config.mesh, devices)
    first, state = _restore(manager, config, mesh, out)
    keys = jax.random.key(config.seed + 1)
    bar = tqdm.tqdm(
        range(first, config.steps),
        initial=first,
        total=config.steps,
        desc="codec",
        mininterval=2,
        disable=jax.process_index() > 0,
    )
    for step in bar:
        quantised = step >= config.warmup_steps
        if step == config.warmup_steps and config.start_from is None:
            state = start_codebooks(state, config, audio, mesh)
        since = step - config.warmup_steps + 1
        revive = quantised and since % config.dead_code_every_steps == 0 and step < 0.8 * config.steps
        adversarial = config.adversarial is not None and step >= config.adversarial.start
        key = jax.random.fold_in(keys, step)
        wav = place_wav(audio.batch(config, 0, step), mesh)
        state, metrics = train_step(
            state, wav, key, jnp.asarray(revive), config=config, mesh=mesh, quantised=quantised, adversarial=adversarial
        )
        if (step + 1) % config.log_every_steps == 0 or step + 1 == config.steps:
            values = {name: float(value) for name, value in metrics.items()}
            bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()})
            report(step + 1, values | (codebook_report(state) if quantised else {}))
        if (step + 1) % config.save_every_steps == 0 or step + 1 == config.steps:
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({"config": to_dict(config)})
            )
            manager.save(step + 1, args=items)
            manager.wait_until_finished()
            if quantised:
                show(step + 1, state)
    manager.close()
    return state


def codec_params(state: State) -> dict:
    """What `save_codec` stores: the module's parameters and the codebooks, whole and on this host."""
    parts = {**state["params"], "quantizer": {"codebooks": state["statistics"]["codebooks"]}}
    return multihost_utils.process_allgather(parts, tiled=True) if jax.process_count() > 1 else jax.device_get(parts)


def finish(config: CodecTrainConfig, state: State, audio: Audio, out: Path, passport_extra: dict) -> Path:
    """Writes the codec to `out/codec` and its reconstruction table beside it; returns the codec's folder."""
    folder, params = out / "codec", codec_params(state)
    sha256 = save_codec(folder, config.codec, params, passport_extra)
    codec = Codec(config.codec, params, passport_extra, sha256)
    if audio.heldout:
        table = reconstruction_table(codec, audio)
        (out / "reconstruction.json").write_text(json.dumps(table, indent=1) + "\n")
        (out / "reconstruction.md").write_text(markdown(table))
        print(markdown(table))
    if (out / LOG).is_file():
        draw_curve(out)
    return folder


def draw_curve(out: Path) -> Path | None:
    """Writes OUT/curve.png, losses and codebook perplexity by step; None without matplotlib, an optional extra."""
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    panels = {
        "loss": ("mel", "magnitude"),
        "perplexity": sorted({key for line in lines for key in line if "perp" in key}),
    }
    return draw_metrics(out / "curve.png", lines, panels)


class Board:
    """TensorBoard (and metrics.jsonl): metrics, and one held-out clip of each domain as audio and spectrogram."""

    def __init__(self, out: Path, config: CodecTrainConfig, audio: Audio):
        self.writer, self.config, self.log = open_board(out / "tensorboard"), config, out / LOG
        samples = round(SHOWN_SECONDS * config.codec.sample_rate_hz)
        self.clips = {domain: clips[0][:samples] for domain, clips in audio.heldout.items()}

    def report(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        with self.log.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def show(self, step: int, state: State) -> None:
        codec, rate = Codec(self.config.codec, codec_params(state)), self.config.codec.sample_rate_hz
        levels = min(self.config.main_codebooks, codec.codebooks)
        codes = codec.encode_many(list(self.clips.values()), levels)
        wavs = codec.decode_many(codes, [len(clip) for clip in self.clips.values()])
        for (domain, clip), wav in zip(self.clips.items(), wavs, strict=True):
            self.writer.add_audio(f"{domain}/{levels}_codebooks", np.clip(wav, -1, 1), step, rate)
            self.writer.add_image(
                f"{domain}/original_above_{levels}_codebooks", _picture(clip, wav, rate), step, dataformats="HW"
            )
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def _picture(clip: np.ndarray, wav: np.ndarray, rate_hz: int) -> np.ndarray:
    """Log-mel spectrograms of the two, one above the other, low bands below: [rows, frames] of 0 to 255."""
    both = jnp.asarray(np.stack([clip, wav]))
    mels = np.asarray(log_mel(both, sample_rate_hz=rate_hz, window_samples=1024, hop_samples=256, bands=80))
    tall = np.concatenate([mel.T[::-1] for mel in mels])
    return np.clip((tall + 11.5) / 11.5 * 255, 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trains the codec of a config file.

    distributed: how several processes find each other; SLURM and TPU pods need no flags.
    """

    config: tyro.conf.Positional[Path]
    out: Path
    licence: str = "Apache-2.0"
    distributed: DistributedOptions = dataclasses.field(default_factory=DistributedOptions)


def _parse() -> tuple[Arguments, CodecTrainConfig]:
    arguments, rest = tyro.cli(Arguments, return_unknown_args=True, description=__doc__)
    config = load_config(arguments.config)
    if not isinstance(config, CodecTrainConfig):
        raise ValueError(f"{arguments.config}: get_config() gave {type(config).__name__}, wanted CodecTrainConfig")
    return arguments, tyro.cli(CodecTrainConfig, default=config, args=rest)


def main() -> None:
    arguments, config = _parse()
    cli.use_compile_cache()
    process = join(arguments.distributed)
    started, audio = time.monotonic(), Audio(config.audio, config.codec.sample_rate_hz)
    audio.check_trainable()
    facts: dict[str, Any] = {
        "trained_on": f"{audio.minutes:.0f} minutes in {', '.join(Path(folder).name for folder in config.audio)}",
        "trained_steps": config.steps,
        **({"started_from": config.start_from} if config.start_from else {}),
        "licence": arguments.licence,
    }
    if not process.is_first:
        codec_params(train(config, arguments.out, audio))
        return
    print(
        f"{audio.minutes:.1f} minutes in {len(audio.train)} clips ({audio.converted} converted), "
        f"held out: { {name: len(clips) for name, clips in audio.heldout.items()} }"
    )
    board = Board(arguments.out, config, audio)
    # Pictures need every host's part of the weights, so several hosts go without them.
    show = board.show if process.count == 1 else lambda *_: None
    state = train(config, arguments.out, audio, board.report, show)
    board.close()
    folder = finish(config, state, audio, arguments.out, facts)
    print(f"codec: {folder} after {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    with cli.main_guard():
        main()
