"""A codec's folder: float weights beside a passport that names their hash; the shipped codecs are such folders."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import safetensors.numpy

from uniaudio_jax.codec.config import CodecConfig, SegmentConfig
from uniaudio_jax.codec.layouts import LAYOUTS, Layout
from uniaudio_jax.config_files import from_dict
from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.files import atomic_write, read_json, write_json
from uniaudio_jax.trees import check_arrays, flatten, unflatten

SHIPPED = Path(__file__).parent / "shipped"
WEIGHTS_FILE, PASSPORT_FILE = "weights.safetensors", "passport.json"


class StoredCodec(NamedTuple):
    """The contents of a codec's folder; `extra` are the licence and training facts of its passport."""

    config: CodecConfig
    params: dict
    extra: dict
    weights_sha256: str


def save_codec(
    path: str | Path,
    config: CodecConfig,
    params: dict,
    passport_extra: dict | None = None,
    precision: Literal["float16", "float32"] = "float16",
) -> str:
    """Writes weights and passport into the folder `path`; returns the sha256 of the weights file.

    params: the module's pure dict, with `quantizer.codebooks` [K, entries, width] beside it. The weights are written
    before the passport that names their hash, each atomically, so an interrupted save is refused on loading.
    """
    folder = Path(path)
    with np.errstate(over="ignore"):
        stored = {name: np.asarray(value, precision) for name, value in flatten(params).items()}
    for name, value in stored.items():
        if not np.isfinite(value).all():
            raise ValueError(
                f"{folder}: weight {name} has values that are not finite in {precision}; nothing was saved"
            )
    blob = safetensors.numpy.save(stored)
    sha256 = hashlib.sha256(blob).hexdigest()
    passport = {
        "config": {**dataclasses.asdict(config), "layout_kind": config.layout.kind},
        "weights_sha256": sha256,
        **(passport_extra or {}),
    }
    with atomic_write(folder / WEIGHTS_FILE) as partial:
        partial.write_bytes(blob)
    write_json(folder / PASSPORT_FILE, passport)
    return sha256


def _layout_of(kind: str, where: Path) -> type[Layout]:
    if kind not in LAYOUTS:
        raise ValueError(
            f"{where}: got layout {kind!r}, wanted one of {', '.join(LAYOUTS)}; "
            "add it to uniaudio_jax/codec/layouts, or use the version that wrote this codec"
        )
    return LAYOUTS[kind]


def _config_from(passport: dict, where: Path) -> CodecConfig:
    fields = passport["config"]
    if not isinstance(fields, dict) or not {"layout_kind", "layout"} <= fields.keys():
        raise ValueError(
            f"{where}: not a codec passport of this version (its config has no layout_kind and layout); "
            "write the codec again with uniaudio_jax.codec.storage.save_codec"
        )
    fields = dict(fields)
    layout = _layout_of(str(fields.pop("layout_kind")), where)
    fields["layout"] = from_dict(layout, fields["layout"], f"{where}, layout")
    if fields.get("segment"):
        fields["segment"] = from_dict(SegmentConfig, fields["segment"], f"{where}, segment")
    return from_dict(CodecConfig, fields, str(where))


def _folder_of(name_or_path: str | Path) -> Path:
    shipped = sorted(folder.name for folder in SHIPPED.iterdir()) if SHIPPED.is_dir() else []
    if str(name_or_path) in shipped:
        return SHIPPED / str(name_or_path)
    folder = Path(name_or_path)
    if (folder / PASSPORT_FILE).is_file():
        return folder
    raise ValueError(
        f"codec {str(name_or_path)!r}: neither a shipped codec ({', '.join(shipped) or 'none'}) "
        f"nor a folder with {PASSPORT_FILE}{did_you_mean(str(name_or_path), shipped)}"
    )


def read_codec(name_or_path: str | Path) -> StoredCodec:
    """The shipped codec of that name, or the one in that folder, as float32. The weights must have the passport's hash.

    Raises ValueError for a name or folder without a codec, a passport of another version, and weights that are missing
    or not those of the passport.
    """
    folder = _folder_of(name_or_path)
    wanted = "the passport of a codec; copy the codec's folder again"
    passport = read_json(folder / PASSPORT_FILE, wanted, ("config", "weights_sha256"))
    config = _config_from(passport, folder / PASSPORT_FILE)
    if not (folder / WEIGHTS_FILE).is_file():
        raise ValueError(f"{folder}: no {WEIGHTS_FILE} beside {PASSPORT_FILE}; copy the whole folder")
    blob = (folder / WEIGHTS_FILE).read_bytes()
    sha256 = hashlib.sha256(blob).hexdigest()
    if sha256 != passport["weights_sha256"]:
        raise ValueError(
            f"{folder / WEIGHTS_FILE}: got weights with sha256 {sha256[:16]}…, "
            f"wanted {str(passport['weights_sha256'])[:16]}… ({PASSPORT_FILE}); restore both files from the same save"
        )
    flat = {name: value.astype(np.float32) for name, value in safetensors.numpy.load(blob).items()}
    extra = {key: value for key, value in passport.items() if key not in ("config", "weights_sha256")}
    return StoredCodec(config, unflatten(flat), extra, sha256)


def check_shapes(stored: StoredCodec, module_params: dict[str, Any], where: str | Path) -> None:
    """Raises ValueError unless `stored` has every leaf of `module_params` (arrays or shapes) and the codebooks."""
    quantizer = stored.config.quantizer
    wanted = {name: tuple(leaf.shape) for name, leaf in flatten(module_params).items()}
    wanted["quantizer.codebooks"] = (quantizer.codebooks, quantizer.entries, quantizer.width)
    arrays = {name: array for name, array in flatten(stored.params).items() if name in wanted}
    remedy = "write the codec again with uniaudio_jax.codec.storage.save_codec"
    check_arrays(f"{where}, {WEIGHTS_FILE} against the config in {PASSPORT_FILE}", arrays, wanted, remedy)
