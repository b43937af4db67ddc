"""Checkpoints, everything or nothing: in one Orbax step the arrays of a training, and what they were made with."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from uniaudio_jax.codec.passports import codes_of
from uniaudio_jax.config import ModelConfig, RunConfig
from uniaudio_jax.config_files import from_dict, to_dict
from uniaudio_jax.errors import first_line
from uniaudio_jax.lora import ADAPTERS, adapter_shapes, merging
from uniaudio_jax.optim import TrainState, all_finite
from uniaudio_jax.orbax_storage import storage_options
from uniaudio_jax.paths import Place, absolute
from uniaudio_jax.spikes import no_level
from uniaudio_jax.vocab import grows_from

logging.getLogger("absl").setLevel(logging.CRITICAL)  # what Orbax logs of a failed save, we raise
FOLDER = "checkpoints"
MOST_READS = 5
"""How often a reader begins anew because the training deleted the checkpoint that it was reading."""
REMEDIES = {
    "make room on the disk": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "give this user the right to write into that folder": (errno.EACCES, errno.EPERM, errno.EROFS),
    "put the folder back, which was moved or deleted during the training": (errno.ENOENT, errno.ESTALE),
}
"""What a user can do about a save that failed, by the error numbers of its cause."""


def describe(config: RunConfig, codec_passport: dict[str, Any] | None) -> dict[str, Any]:
    """What stands beside the weights in every checkpoint, as JSON values."""
    meta = {"config": to_dict(config), "vocabulary": config.model.ids.layout(), "codec": codec_passport}
    return json.loads(json.dumps(meta))


class CheckpointReader:
    """The checkpoints of one run folder, to be read while it may be in training: nothing there is made or deleted.

    A checkpoint is a set of named items, trees of arrays, and `meta`, JSON values beside them.
    """

    def __init__(self, run: Place):
        self.folder = absolute(run / FOLDER)
        self._formats = storage_options(self.folder)
        self.manager = ocp.CheckpointManager(self.folder, options=self._options())

    def _options(self) -> ocp.CheckpointManagerOptions:
        # Lightweight: the steps are listed by their names alone, as each of them may vanish at any time.
        return ocp.CheckpointManagerOptions(read_only=True, lightweight_initialize=True, **self._formats)

    def latest(self) -> int | None:
        """The newest complete step."""
        return self.manager.latest_step()

    def close(self) -> None:
        self.manager.close()

    def read_meta(self, step: int | None = None) -> dict[str, Any]:
        """The JSON part of a checkpoint, of the newest by default."""
        return self._read(self.existing(step), meta=ocp.args.JsonRestore())["meta"]

    def restore(self, shapes: Mapping[str, Any], step: int | None = None) -> dict[str, Any]:
        """The items that `shapes` names, each placed as its shapes say, on whatever devices those are."""
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in shapes.items()}
        restored = self._read(self.existing(step), **arguments)
        return {name: restored[name] for name in shapes}

    def _read(self, step: int, **arguments: Any) -> Any:
        try:
            return self.manager.restore(step, args=ocp.args.Composite(**arguments))
        except Exception as error:  # Orbax, TensorStore and jax raise errors of many kinds for a damaged checkpoint
            others = [other for other in self.manager.all_steps() if other != step]
            raise ValueError(
                f"{self.folder / str(step)}: this checkpoint cannot be read ({first_line(error)}); copy it again, or "
                f"delete its folder to go on from another step (there are {others or 'none'})"
            ) from error

    def existing(self, step: int | None = None) -> int:
        """`step`, by default the newest. Raises ValueError when there is no such checkpoint."""
        wanted = self.latest() if step is None else step
        if wanted is None or wanted not in self.manager.all_steps():
            raise ValueError(
                f"{self.folder}: no checkpoint{'' if step is None else f' of step {step}'}, there are "
                f"{list(self.manager.all_steps()) or 'none'}; train with `python -m uniaudio_jax.train`"
            )
        return wanted


class Checkpoints(CheckpointReader):
    """The checkpoints of one run folder, for the one training that holds it.

    Saving happens in the background; a step that was cut off never counts, and is cleared away. The newest `keep` stay,
    and that of step `good`.
    """

    def __init__(self, run: Place, keep: int = 2):
        self.keep = keep
        self.good: int | None = None
        super().__init__(run)

    def _options(self) -> ocp.CheckpointManagerOptions:
        return ocp.CheckpointManagerOptions(preservation_policy=self, cleanup_tmp_directories=True, **self._formats)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of these checkpoints, from the oldest on, stay; Orbax asks."""
        newest = [info.step for info in checkpoints[-self.keep :]]
        return [info.step in (*newest, self.good) for info in checkpoints]

    def save(self, step: int, items: Mapping[str, Any], meta: dict[str, Any]) -> None:
        """Starts to save. Earlier checkpoints stay when that fails.

        Raises ValueError for arrays that are not finite, and OSError when there is no room, or when this or the save
        before it failed.
        """
        if not all_finite(dict(items)):
            raise ValueError(
                f"{self.folder}: step {step} is not saved, as its weights are not finite; {self._kept(step)}; train "
                "with a lower learning rate"
            )
        arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        try:
            self._check_room(sum(leaf.nbytes for leaf in jax.tree.leaves(dict(items))))
            self.manager.save(step, args=ocp.args.Composite(**arguments, meta=ocp.args.JsonSave(meta)))
        except Exception as error:
            raise self._failed(step, error) from error

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free if isinstance(self.folder, Path) else needed
        if free < needed:
            full = OSError(f"{needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free")
            full.errno = errno.ENOSPC
            raise full

    def wait(self) -> None:
        """Returns when the last save is on disk. Raises OSError when it failed."""
        try:
            self.manager.wait_until_finished()
        except Exception as error:
            raise self._failed(None, error) from error

    def close(self) -> None:
        self.wait()
        super().close()

    def _kept(self, step: int | None) -> str:
        """Which complete steps but for `step` are on disk, in words."""
        kept = [kept for kept in self.manager.all_steps(read=True) if kept != step]
        return f"the complete checkpoints {kept} stay, and training goes on from them" if kept else "none is complete"

    def _failed(self, step: int | None, error: Exception) -> OSError:
        return OSError(
            f"{self.folder}: saving{'' if step is None else f' step {step}'} failed: {first_line(error)}; "
            f"{self._kept(step)}; {remedy(error)} and start again"
        )


def remedy(error: BaseException) -> str:
    """What a user can do about a save that failed; its cause is told by number, or in the words of another library."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    for words, numbers in REMEDIES.items():
        for cause in causes:
            if getattr(cause, "errno", None) in numbers or any(os.strerror(n) in str(cause) for n in numbers):
                return words
    return "mend that"


class Saved(NamedTuple):
    """A checkpoint of a run as it was read; adapters: those that are merged into the weights."""

    step: int
    config: RunConfig
    meta: dict[str, Any]
    weights: Any
    adapters: Any


def read_newest(
    run: Place, shapes: Callable[[RunConfig, dict[str, Any]], Any] = lambda *_: None, wanted: int | None = None
) -> Saved:
    """The checkpoint of step `wanted`, or else the newest complete one, of a run folder, which may be in training.

    shapes: the shapes of the weights, given the config and the JSON part; None leaves them unread. They are the running
    mean of the weights where the training keeps one, and adapters are merged into them. The folder stays as it is. When
    the training deletes the checkpoint meanwhile, the newest one then is read instead. Raises ValueError when that
    happens again and again, or there is none.
    """
    if not (run / FOLDER).is_dir():
        raise ValueError(f"{run}: no folder {FOLDER}/ in it; --run wants the --out folder of a training")
    for _ in range(MOST_READS):
        reader, step = CheckpointReader(run), None
        try:
            step = reader.existing(wanted if wanted in reader.manager.all_steps() else None)
            meta = reader.read_meta(step)
            config = from_dict(RunConfig, meta["config"], f"{reader.folder / str(step)}, config")
            wanted_shapes, item = shapes(config, meta), weights_item(meta)
            if wanted_shapes is None:
                return Saved(step, config, meta, None, None)
            weights = reader.restore({item: wanted_shapes | adapter_shapes(config.lora, wanted_shapes)}, step)[item]
            merged = merging(config.lora, jax.tree.map(lambda leaf: leaf.sharding, wanted_shapes))
            return Saved(step, config, meta, merged(weights), weights.get(ADAPTERS, {}))
        except Exception:
            with closing(CheckpointReader(run)) as now:
                if now.latest() == step:
                    raise
            wanted = None
        finally:
            reader.close()
    raise ValueError(
        f"{run}: its training deleted checkpoint {step} while it was read, and {MOST_READS - 1} before it; let it keep "
        "more (--train.keep-checkpoints), or read when it has ended"
    )


def weights_item(meta: dict[str, Any]) -> str:
    """The item of a checkpoint that holds the weights to evaluate and generate with."""
    return "params" if meta["config"]["train"].get("ema_decay") is None else "ema"


def state_items(state: TrainState) -> dict[str, Any]:
    """The items of a language model's checkpoint; "ema" and "level" are among them where these means are kept."""
    counters = {"step": state.step, "skipped": state.skipped}
    items = {"params": state.params, "optimizer": state.optimizer, "counters": counters}
    return items | {name: mean for name, mean in (("ema", state.ema), ("level", state.level)) if mean is not None}


def restore_state(
    checkpoints: Checkpoints, shapes: TrainState, meta: dict[str, Any], step: int | None = None
) -> TrainState:
    """The state of a language model at a step, by default the newest; a mean of the weights that was not kept so far
    begins with the weights, the level of the loss without any.

    Raises ValueError when the checkpoint's model, adapters, vocabulary or codec are not those of `meta`.
    """
    step = checkpoints.existing(step)
    saved = checkpoints.read_meta(step)
    check_same(checkpoints.folder / str(step), saved, meta)
    new_mean = shapes.ema is not None and weights_item(saved) == "params"
    new_level = shapes.level is not None and saved["config"]["train"].get("spike_deviations") is None
    wanted = shapes._replace(ema=None) if new_mean else shapes
    items = checkpoints.restore(state_items(wanted._replace(level=None) if new_level else wanted), step)
    means = {name: items.get(name) for name in ("ema", "level")}
    state = TrainState(items["params"], items["optimizer"], **items["counters"], **means)
    if new_level:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes.level)
        state = state._replace(level=jax.device_put(jax.device_get(no_level()), shardings))
    return state.start_ema() if new_mean else state


def check_same(where: Place, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises ValueError that names both sides when model, adapters, vocabulary or codec differ."""
    pairs = {
        "lora": (_adapters(saved), _adapters(wanted)),
        "model": (_model(saved, where), _model(wanted, where)),
        "vocabulary": (_known(saved["vocabulary"], wanted["vocabulary"]), wanted["vocabulary"]),
        "codec": (_codec_key(saved), _codec_key(wanted)),
    }
    for what, (got, want) in pairs.items():
        if got != want:
            raise ValueError(
                f"{where}: this checkpoint's {what} is {_difference(got, want)}, the run's is "
                f"{_difference(want, got)}; use the config it was trained with, or another --out"
            )


def _known(saved: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """`saved` with the special tokens that were given reserved slots since then, where nothing else differs."""
    newer = saved | {"special": wanted["special"]}
    return newer if newer == wanted and grows_from(wanted, saved) else saved


def check_growth(where: Place, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises ValueError unless a run described by `wanted` can go on with the weights of `saved`: the same codec, the
    same sizes but for the vocabulary and for conditions further ahead, and every old id with its old meaning."""
    models = [_model(meta, where) for meta in (saved, wanted)]
    ids = [model.pop("vocabulary") for model in models]
    known, looked_up = (model["layout"]["aligned"] for model in models)
    if known and looked_up[: len(known)] == known:
        models[0]["layout"]["aligned"] = looked_up
    for model in models:
        del model["appended"], model["ranges"]
    for what, got, want in (("model", *models), ("codec", _codec_key(saved), _codec_key(wanted))):
        if got != want:
            raise ValueError(
                f"{where}: start_from has another {what}: {_difference(got, want)}, the run wants "
                f"{_difference(want, got)}; use those of the run that you start from"
            )
    if not grows_from(wanted["vocabulary"], saved["vocabulary"]):
        got, want = saved["vocabulary"], wanted["vocabulary"]
        raise ValueError(
            f"{where}: start_from has the ids {_difference(got, want)}, the run wants "
            f"{_difference(want, got)}; new ranges may only be appended (model.appended)"
        )
    if ids[0] > ids[1]:
        raise ValueError(
            f"{where}: start_from has {ids[0]} ids, the run wants {ids[1]}; state model.vocabulary {ids[0]} or more"
        )


def _model(meta: dict[str, Any], where: Place) -> dict[str, Any]:
    """The model's config as a dict that is equal for checkpoints that state the same sizes in other ways."""
    return to_dict(from_dict(ModelConfig, meta["config"]["model"], f"{where}, config, model").canonical())


def _adapters(meta: dict[str, Any]) -> dict[str, Any]:
    """The config of the adapters; where there are none, nothing else of it matters."""
    lora = meta["config"].get("lora") or {}
    return lora if lora.get("rank") else {"rank": None}


def _codec_key(meta: dict[str, Any]) -> dict[str, str] | None:
    return meta["codec"] and codes_of(meta["codec"])


def _difference(one: Any, other: Any) -> Any:
    """The part of `one` that is not in `other`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: _difference(value, other.get(key)) for key, value in one.items() if value != other.get(key)}
    return one


def one_device(shapes: Any) -> Any:
    """`shapes` placed whole on the first device: for a restore outside of training."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)
