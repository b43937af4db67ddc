"""Trains a codec: `python -m uniaudio_jax.codec.train configs/codec_tiny_16k.py --out RUN [--steps 2000 …]`.

Three phases in one run: unquantised warm-up; k-means start of every codebook on the residuals of held-back training
batches; then straight-through training with codebooks that follow running means. The batch of a step is a function of
(seed, step), so a run that was stopped and resumed equals one that was not.
"""

import dataclasses
import functools
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import tqdm
import tyro
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from uniaudio_jax import cli
from uniaudio_jax.codec import rvq
from uniaudio_jax.codec.audio_files import read_audio
from uniaudio_jax.codec.codec import Codec, open_codec
from uniaudio_jax.codec.losses import mel_distance, spectral_losses
from uniaudio_jax.codec.module import build_module, decode_vectors, encode_vectors, with_params
from uniaudio_jax.codec.storage import save_codec
from uniaudio_jax.config import CodecTrainConfig, load_config, to_dict
from uniaudio_jax.metrics.waveform import stoi
from uniaudio_jax.tensorboard import open_board

KMEANS_VECTORS_PER_ENTRY = 40
TABLE_LEVELS = (1, 2, 3, 8)
FREE_TO_CHANGE = ("steps", "save_every_steps", "log_every_steps")  # between a run and its continuation
CLEAN_SPEECH = ("speech", "tts")  # beginnings of the domains whose STOI is measured
HELDOUT_CLIPS = 16  # of each domain in the reconstruction table

State = dict[str, Any]


class Audio:
    """Training clips of every folder as int16, and held-out clips by domain."""

    def __init__(self, folders: tuple[str, ...], sample_rate_hz: int):
        self.train: list[np.ndarray] = []
        self.heldout: dict[str, list[np.ndarray]] = {}
        self.converted = 0
        self._sample_rate_hz = sample_rate_hz
        for folder in map(Path, folders):
            for path, heldout in _files_of(folder):
                clip = read_audio(path, sample_rate_hz)
                self.converted += bool(clip.converted)
                if not heldout:
                    self.train.append(np.round(clip.samples * 32767).astype(np.int16))
                elif len(self.heldout.setdefault(folder.name, [])) < HELDOUT_CLIPS:
                    self.heldout[folder.name].append(clip.samples)
        if not self.train:
            raise ValueError(f"CodecTrainConfig.audio={folders}: got no training clip, wanted wav files in the folders")
        self._ends = np.cumsum([len(clip) for clip in self.train])

    @property
    def minutes(self) -> float:
        return float(self._ends[-1]) / self._sample_rate_hz / 60

    def _segment(self, rng: np.random.Generator, samples: int) -> np.ndarray:
        clip = self.train[int(np.searchsorted(self._ends, rng.integers(self._ends[-1]), side="right"))]
        start = int(rng.integers(max(1, len(clip) - samples + 1)))
        part = clip[start : start + samples].astype(np.float32) / 32767
        return np.pad(part, (0, samples - len(part)))

    def batch(self, config: CodecTrainConfig, *key: int) -> Float[np.ndarray, "B S"]:
        """Random segments at 0 to -12 dB, some of them sums of two clips; a function of (seed, key)."""
        rng = np.random.default_rng([config.seed, *key])
        hop = config.codec.hop_samples
        samples = round(config.segment_seconds * config.codec.sample_rate_hz / hop) * hop
        rows = np.zeros((config.batch, samples), np.float32)
        for row in rows:
            row += self._segment(rng, samples)
            if rng.random() < config.mix_share:
                row += self._segment(rng, samples) * 10 ** (-rng.uniform(0, 20) / 20)
            row *= 10 ** (-rng.uniform(0, 12) / 20) / max(1.0, float(np.abs(row).max()))
        return rows


def _files_of(folder: Path) -> list[tuple[Path, bool]]:
    """(path, held out?) of the folder's audio, in a fixed order."""
    if (folder / "manifest.jsonl").is_file():
        lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
        names = [(line[key], line["split"]) for line in lines for key in ("audio", "noisy_audio") if line.get(key)]
        return [(folder / name, split == "heldout") for name, split in names]
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac", ".ogg"))
    if not paths:
        raise ValueError(f"{folder}: no manifest.jsonl and no wav, flac or ogg file; wanted a folder of audio")
    return [(path, "heldout" in path.relative_to(folder).parts) for path in paths]


def optimizer(config: CodecTrainConfig) -> optax.GradientTransformation:
    """AdamW with clipping, linear warm-up and cosine decay to a hundredth of the peak."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.peak_learning_rate,
        min(config.learning_rate_warmup_steps, config.steps - 1),
        config.steps,
        config.peak_learning_rate / 100,
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, b1=0.9, b2=0.99, weight_decay=config.weight_decay),
    )


def initial_state(config: CodecTrainConfig) -> State:
    """Parameters and codebooks of `start_from`, or random ones and zeros; empty optimizer moments."""
    quantizer = config.codec.quantizer
    if config.start_from is None:
        params = nnx.to_pure_dict(nnx.state(build_module(config.codec, nnx.Rngs(config.seed)), nnx.Param))
        books = jnp.zeros((quantizer.codebooks, quantizer.entries, quantizer.width))
        counts = jnp.zeros((quantizer.codebooks, quantizer.entries))
    else:
        start = open_codec(config.start_from)
        if (start.config.layout, start.config.quantizer) != (config.codec.layout, quantizer):
            raise ValueError(f"start_from={config.start_from!r}: got a codec of {start.config.layout} and "
                             f"{start.config.quantizer}, wanted {config.codec.layout} and {quantizer}")  # fmt: skip
        params = {key: value for key, value in start.params.items() if key != "quantizer"}
        params, books = jax.tree.map(jnp.asarray, (params, start.params["quantizer"]["codebooks"]))
        frames = config.batch * config.segment_seconds * config.codec.frame_rate_hz
        counts = jnp.full(books.shape[:2], frames / quantizer.entries)
    statistics = {"codebooks": books, "sums": books * counts[..., None], "counts": counts}
    state = {"params": params, "moments": optimizer(config).init(params), "statistics": statistics}
    # Weak types would compile the step a second time.
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)


def random_levels(config: CodecTrainConfig, key: PRNGKeyArray, rows: int) -> Int[Array, "B"]:
    """Levels each row trains with: `main_codebooks` for half of them, else 1 to all."""
    stored = config.codec.quantizer.codebooks
    half, other = jax.random.split(key)
    anything = jax.random.randint(other, (rows,), 1, stored + 1)
    return jnp.where(jax.random.bernoulli(half, 0.5, (rows,)), min(config.main_codebooks, stored), anything)


def _losses(params, config: CodecTrainConfig, codebooks, wav, key, quantised: bool):
    module = with_params(config.codec, params)
    frames = jnp.full(wav.shape[0], wav.shape[1] // config.codec.hop_samples)
    vectors = encode_vectors(module, wav, frames)
    result = rvq.quantise(vectors, codebooks, random_levels(config, key, len(wav))) if quantised else None
    got = decode_vectors(module, vectors if result is None else result.vectors, frames)
    mel, magnitude = spectral_losses(wav, got, config.codec.sample_rate_hz)
    loss = config.mel_weight * mel + config.magnitude_weight * magnitude
    metrics = {"mel": mel, "magnitude": magnitude}
    if result is not None:
        loss += config.commitment_weight * result.commitment
        metrics["commitment"] = result.commitment
    return loss, ({"loss": loss, **metrics}, result)


@functools.partial(jax.jit, static_argnames=("config", "quantised"), donate_argnums=0)
def train_step(
    state: State,
    wav: Float[Array, "B S"],
    key: PRNGKeyArray,
    revive: Bool[Array, ""],
    *,
    config: CodecTrainConfig,
    quantised: bool,
) -> tuple[State, dict[str, Array]]:
    """One update. `quantised` says whether the codebooks stand between encoder and decoder."""
    level_key, revive_key = jax.random.split(key)
    statistics = rvq.Statistics(**state["statistics"])
    (_, (metrics, result)), gradients = jax.value_and_grad(_losses, has_aux=True)(
        state["params"], config, statistics.codebooks, wav, level_key, quantised
    )
    updates, moments = optimizer(config).update(gradients, state["moments"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    if result is not None:
        statistics = rvq.follow(statistics, result, config.codebook_decay)
        revived, dead = rvq.revive(statistics, result.residuals, config.revive_below, revive_key)
        metrics["dead_entries"] = jnp.sum(dead)
        statistics = jax.tree.map(lambda new, old: jnp.where(revive, new, old), revived, statistics)
    return {"params": params, "moments": moments, "statistics": statistics._asdict()}, metrics


@functools.partial(jax.jit, static_argnames="config")
def _vectors(params, wav, *, config: CodecTrainConfig):
    module = with_params(config.codec, params)
    frames = jnp.full(wav.shape[0], wav.shape[1] // config.codec.hop_samples)
    vectors = encode_vectors(module, wav, frames)
    return vectors.reshape(-1, vectors.shape[-1])


def start_codebooks(state: State, config: CodecTrainConfig, audio: Audio) -> State:
    """The state with every codebook started by k-means on encoded training batches."""
    quantizer, parts, count = config.codec.quantizer, [], 0
    while count < quantizer.entries * KMEANS_VECTORS_PER_ENTRY:
        parts.append(np.asarray(_vectors(state["params"], audio.batch(config, 1, len(parts)), config=config)))
        count += len(parts[-1])
    share = len(parts[0]) / count
    key = jax.random.key(config.seed)
    start = rvq.kmeans_start(jnp.concatenate(parts), quantizer.codebooks, quantizer.entries, key, share)
    return {**state, "statistics": start._asdict()}


def _manager(out: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    return ocp.CheckpointManager((out / "checkpoints").resolve(), options=options)


def _restore(manager: ocp.CheckpointManager, config: CodecTrainConfig, out: Path) -> tuple[int, State]:
    """(next step, state): the last checkpoint's, or a new one. A checkpoint of another config is refused."""
    state = initial_state(config)
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


def train(
    config: CodecTrainConfig, out: Path, audio: Audio, report: Callable[[int, dict[str, float]], None] = lambda *_: None
) -> State:
    """The trained state, from the last checkpoint in `out` or from the start; `report` gets (step, metrics)."""
    manager = _manager(out)
    first, state = _restore(manager, config, out)
    keys = jax.random.key(config.seed + 1)
    bar = tqdm.tqdm(range(first, config.steps), initial=first, total=config.steps, desc="codec", mininterval=2)
    for step in bar:
        quantised = step >= config.warmup_steps
        if step == config.warmup_steps and config.start_from is None:
            state = start_codebooks(state, config, audio)
        since = step - config.warmup_steps + 1
        revive = quantised and since % config.revive_every_steps == 0 and step < 0.8 * config.steps
        key = jax.random.fold_in(keys, step)
        wav = audio.batch(config, 0, step)
        state, metrics = train_step(state, wav, key, jnp.asarray(revive), config=config, quantised=quantised)
        if (step + 1) % config.log_every_steps == 0 or step + 1 == config.steps:
            values = {name: float(value) for name, value in metrics.items()}
            bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()})
            report(step + 1, values)
        if (step + 1) % config.save_every_steps == 0 or step + 1 == config.steps:
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({"config": to_dict(config)})
            )
            manager.save(step + 1, args=items)
            manager.wait_until_finished()
    manager.close()
    return state


def codec_params(state: State) -> dict:
    """What `save_codec` stores: the module's parameters and the codebooks."""
    codebooks = np.asarray(state["statistics"]["codebooks"])
    return {**jax.tree.map(np.asarray, state["params"]), "quantizer": {"codebooks": codebooks}}


def reconstruction_table(codec: Codec, heldout: dict[str, list[np.ndarray]]) -> dict:
    """Mel distance (and STOI of speech) per domain and number of codebooks, and the share of each codebook in use."""
    table: dict[str, Any] = {"domains": {}}
    every = []
    for domain, clips in sorted(heldout.items()):
        codes = codec.encode_many(clips)
        every += codes
        rows = {}
        for levels in sorted({min(level, codec.codebooks) for level in TABLE_LEVELS}):
            wavs = codec.decode_many([item[:, :levels] for item in codes], [len(clip) for clip in clips])
            pairs = list(zip(clips, wavs, strict=True))
            distances = [mel_distance(*pair, codec.sample_rate_hz) for pair in pairs]
            rows[str(levels)] = {"mel_distance": float(np.mean(distances))}
            if domain.startswith(CLEAN_SPEECH):
                rows[str(levels)]["stoi"] = _mean_stoi(pairs, codec.sample_rate_hz)
        table["domains"][domain] = rows
    codes = np.concatenate(every)
    entries = codec.config.quantizer.entries
    table["frames"] = len(codes)
    table["codebook_use"] = [len(np.unique(level)) / min(entries, len(codes)) for level in codes.T]
    return table


def _mean_stoi(pairs: list[tuple[np.ndarray, np.ndarray]], sample_rate_hz: int) -> float | None:
    """The mean over the clips that have a value; None where no clip has one, or pystoi is not installed."""
    if importlib.util.find_spec("pystoi") is None:
        return None
    values = np.array([stoi(wanted, got, sample_rate_hz) for wanted, got in pairs])
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def markdown(table: dict) -> str:
    """The reconstruction table as Markdown."""
    lines = ["| domain | codebooks | mel distance | STOI |", "|---|---|---|---|"]
    for domain, rows in table["domains"].items():
        for levels, row in rows.items():
            intelligible = "" if row.get("stoi") is None else f"{row['stoi']:.3f}"
            lines.append(f"| {domain} | {levels} | {row['mel_distance']:.3f} | {intelligible} |")
    use = ", ".join(f"{100 * share:.0f} %" for share in table["codebook_use"])
    return "\n".join([*lines, "", f"Entries in use per codebook over {table['frames']} held-out frames: {use}", ""])


def finish(config: CodecTrainConfig, state: State, audio: Audio, out: Path, passport_extra: dict) -> Path:
    """Writes the codec to `out/codec` and its reconstruction table beside it; returns the codec's folder."""
    folder = out / "codec"
    sha256 = save_codec(folder, config.codec, codec_params(state), passport_extra)
    codec = Codec(config.codec, codec_params(state), passport_extra, sha256)
    table = reconstruction_table(codec, audio.heldout) if audio.heldout else None
    if table is not None:
        (out / "reconstruction.json").write_text(json.dumps(table, indent=1) + "\n")
        (out / "reconstruction.md").write_text(markdown(table))
        print(markdown(table))
    return folder


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trains the codec of a config file."""

    config: tyro.conf.Positional[Path]
    out: Path
    licence: str = "Apache-2.0"


def main() -> None:
    """Entry point; any field of the config can be given as an option."""
    arguments, rest = tyro.cli(Arguments, return_unknown_args=True)
    config = load_config(arguments.config)
    if not isinstance(config, CodecTrainConfig):
        raise ValueError(f"{arguments.config}: get_config() gave {type(config).__name__}, wanted CodecTrainConfig")
    config = tyro.cli(CodecTrainConfig, default=config, args=rest)
    started = time.monotonic()
    audio = Audio(config.audio, config.codec.sample_rate_hz)
    print(f"{audio.minutes:.1f} minutes in {len(audio.train)} clips ({audio.converted} converted), "
          f"held out: { {name: len(clips) for name, clips in audio.heldout.items()} }")  # fmt: skip
    with open_board(arguments.out / "tensorboard") as writer:

        def report(step: int, metrics: dict[str, float]) -> None:
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)

        state = train(config, arguments.out, audio, report)
    facts = {
        "trained_on": f"{audio.minutes:.0f} minutes in {', '.join(Path(folder).name for folder in config.audio)}",
        "trained_steps": config.steps,
        "licence": arguments.licence,
    }
    folder = finish(config, state, audio, arguments.out, facts)
    print(f"codec: {folder} after {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    with cli.main_guard():
        main()
