"""A run as a folder that PyTorch and safetensors, or onnxruntime, alone can use, or a SEANet codec in its PyTorch
project's names.

    python -m uniaudio_jax.export_torch --run RUN --out DIR
    python -m uniaudio_jax.export_torch --run RUN --out DIR --format onnx
    python -m uniaudio_jax.export_torch --verify DIR --run RUN
    python -m uniaudio_jax.export_torch --kind codec --run CODEC --out DIR

The folder holds the weights in the names of the public PyTorch checkpoints (model.safetensors, config.json), the model
and the codec's decoder in plain PyTorch, what each id means (vocabulary.json), and a model card. Where PyTorch is
installed it also has model.pth, and certificate.json, which says how far all this is from the run; a folder that is too
far is not written. A run's adapters are merged into its weights, and stand alone in adapters.safetensors, in the names
of the package PEFT. With --format onnx a graph of one frame (frame.onnx, and its weights in frame.onnx.data) and a
program that generates by it (onnx_generate.py) stand in place of the PyTorch files.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from data_pipelines.heldout import HeldOut
from data_pipelines.tokenizers.phone import ARPABET, SYMBOLS
from uniaudio_jax import pytorch
from uniaudio_jax.cli import main_guard, parse, use_compile_cache
from uniaudio_jax.codec.exchange import export_codec
from uniaudio_jax.codec.standalone import standalone_decoder
from uniaudio_jax.convert import config_to_json, published_tensors, to_torch_names
from uniaudio_jax.errors import first_line
from uniaudio_jax.export.card import model_card
from uniaudio_jax.export.certificate import CERTIFICATE, Exported, Heldout, certificate_of, faults_of, read_certificate
from uniaudio_jax.export.onnx_folder import GRAPH, OnnxFolder, load_packages, write_onnx
from uniaudio_jax.export.public import public_config
from uniaudio_jax.export.staging import staged
from uniaudio_jax.export.torch_folder import TorchFolder
from uniaudio_jax.export.vocabulary import vocabulary_json
from uniaudio_jax.export.weights import save_tensors, write_safetensors, write_torch
from uniaudio_jax.files import check_local, write_json
from uniaudio_jax.lora import ADAPTERS, adapters_of
from uniaudio_jax.packages import load_package
from uniaudio_jax.paths import PlaceOption
from uniaudio_jax.pytorch.load import INSTALL
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.tasks import get_task
from uniaudio_jax.trees import flatten

CODE = ("modeling_uniaudio.py", "modeling_codec.py", "prompts.py")
HELDOUT_TASKS = 3


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and where to."""

    run: PlaceOption | None = None
    """Folder of a training, or of a codec."""
    out: Path | None = None
    """Folder of the exported files. Those of an earlier export are replaced; other files there stay."""
    verify: Path | None = None
    """An exported folder to certify again instead: its hashes, and with --run its logits, tokens and waveforms."""
    kind: Literal["model", "codec"] = "model"
    """What `run` is the folder of: a training, or a SEANet codec."""
    format: Literal["safetensors", "uniaudio", "onnx"] = "safetensors"
    """uniaudio adds what the public UniAudio code reads, config.yaml and ep0.checkpoint, which needs PyTorch. onnx
    writes a graph for onnxruntime instead, which needs the extra onnx."""
    max_shard_mb: int | None = None
    """The most megabytes of one file of weights; by default all are in one."""
    data_root: PlaceOption | None = None
    """Where the run's tokens lie, if not where they lay in its training; its held-out examples are compared."""

    def __post_init__(self):
        if (self.verify is None) == (self.out is None) or (self.run is None and self.verify is None):
            raise ValueError(
                f"export_torch: got run={self.run}, out={self.out}, verify={self.verify}; wanted --run and --out, or "
                "--verify, with --run or without"
            )
        if self.max_shard_mb is not None and self.max_shard_mb < 1:
            raise ValueError(f"export_torch: got max_shard_mb={self.max_shard_mb}, wanted at least 1")
        if self.format == "onnx" and (self.kind == "codec" or self.max_shard_mb is not None):
            raise ValueError(
                f"export_torch: got --format onnx with kind={self.kind} and max_shard_mb={self.max_shard_mb}; wanted a "
                "model, whose weights are in one file; leave --kind and --max-shard-mb out"
            )


def torch_if_installed() -> Any:
    """The package torch, or None. Raises ValueError where it is installed and does not load."""
    try:
        return load_package("torch", "export_torch", INSTALL)
    except ValueError as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == "torch":
            return None
        raise


def adapter_tensors(run: Run) -> dict[str, np.ndarray]:
    """The adapters of a run by PEFT's names: base_model.model.LAYER.lora_A.weight [rank, in] and .lora_B.weight [out,
    rank]."""
    flat, tensors = flatten({ADAPTERS: jax.device_get(run.adapters)}), {}
    for tensor in published_tensors(run.config.model):
        for end, name in zip("AB", adapters_of(tensor.path), strict=True):
            if name in flat:
                adapter = flat[name] if tensor.layer is None else flat[name][tensor.layer]
                tensors[f"base_model.model.{tensor.name.removesuffix('.weight')}.lora_{end}.weight"] = adapter.T.copy()
    return tensors


def heldout_of(run: Run) -> Heldout:
    """A held-out example of each of the run's first tasks, or why there is none."""
    if run.meta["codec"] is None:
        return Heldout(absent="the run was imported without tokens")
    try:
        examples = []
        for name in list(run.config.data.tasks)[:HELDOUT_TASKS]:
            found = HeldOut(run.config, name, run.meta["codec"]).examples(1)
            examples += [(get_task(name), example.streams) for example in found]
        return Heldout(examples, "" if examples else "the run's tokens have no held-out examples")
    except (ValueError, OSError) as error:
        return Heldout(absent=f"the run's tokens were not read: {first_line(error)}")


def write_pytorch(run: Run, folder: Path, options: ExportOptions, torch: Any) -> str:
    """Writes a run's weights and codec, and the modules that use them; returns a phrase about the weights."""
    state = to_torch_names(jax.device_get(run.params), run.config.model)
    write_safetensors(state, folder, options.max_shard_mb)
    if torch is not None:
        write_torch(torch, state, folder / "model.pth")
    if tensors := adapter_tensors(run):
        lora = run.config.lora
        save_tensors(tensors, folder / "adapters.safetensors", {"r": str(lora.rank), "lora_alpha": str(lora.alpha)})
    if options.format == "uniaudio":
        write_json(folder / "config.yaml", public_config(run.config.model))  # JSON is YAML
        write_torch(load_package("torch", "--format uniaudio", INSTALL), state, folder / "ep0.checkpoint", "model")
    write_decoder(run, folder)
    for name in CODE:
        shutil.copy(Path(pytorch.__path__[0]) / name, folder / name)
    return f"{len(state)} tensors read back bit-equal"


def write_decoder(run: Run, folder: Path) -> None:
    """Writes the decoder of the run's codec, where it has one that stands alone."""
    made = None if run.config.codec is None else standalone_decoder(run.codec.config, run.codec.params)
    if made is not None:
        sizes, state = made
        write_json(folder / "codec.json", sizes)
        save_tensors(state, folder / "codec.safetensors")


def export_run(options: ExportOptions) -> None:
    """Exports a run. Raises ValueError, and writes nothing, when the folder fails its certificate."""
    assert options.run is not None and options.out is not None  # `ExportOptions` refuses the rest
    is_onnx = options.format == "onnx"
    if is_onnx:
        load_packages()
    run, torch = load_run(options.run, options.data_root), torch_if_installed()
    with staged(options.out) as folder:
        write_json(folder / "config.json", config_to_json(run.config.model))
        write_json(folder / "vocabulary.json", vocabulary_json(run.config.model, SYMBOLS, ARPABET))
        if is_onnx:
            written = write_onnx(run.config.model, run.params, folder)
        else:
            written = write_pytorch(run, folder, options, torch)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(run.params))
        card = model_card(run, folder, parameters, has_certificate=torch is not None)
        (folder / "README.md").write_text(card, encoding="utf-8")
        certified = f"no model.pth and no certificate, which need PyTorch: {INSTALL}"
        if torch is not None:
            certificate = certificate_of(run, folder, open_folder(folder), heldout_of(run))
            certified = judged(certificate, options.out)
            write_json(folder / CERTIFICATE, certificate)
    print(f"export: {parameters / 1e6:.2f} M parameters of step {run.step}, {written}: {options.out}")
    print(f"export: {certified}")


def judged(certificate: dict[str, Any], folder: Path) -> str:
    """What a certificate says, in a line. Raises ValueError where it speaks against the folder."""
    if faults := faults_of(certificate):
        raise ValueError(
            f"{folder}: is not the run within {certificate['tolerance']}: {'; '.join(faults)}; no file was changed"
        )
    parts = []
    for name in ("logits_of_random_sequences", "logits_of_heldout_examples", "waveforms"):
        measure = certificate[name]
        told = measure["absent"] if "absent" in measure else f"within {measure['largest_difference']:.1e}"
        parts.append(f"{name.replace('_', ' ')}: {told}")
    greedy = certificate["greedy"]
    told = (
        greedy["absent"] if "absent" in greedy else f"{greedy['equal_tokens']:.4f} of {greedy['frames']} frames equal"
    )
    return f"logits agree with {certificate['runtime']}'s; {'; '.join(parts)}; greedy tokens: {told}"


def verify(options: ExportOptions) -> None:
    """Checks an exported folder against its certificate, and against the run where one is named."""
    assert options.verify is not None
    certificate = read_certificate(options.verify)
    print(f"verify: {len(certificate['sha256'])} files are those of the certificate: {options.verify}")
    if options.run is not None:
        theirs = open_folder(options.verify)
        run = load_run(options.run, options.data_root)
        print(f"verify: {judged(certificate_of(run, options.verify, theirs, heldout_of(run)), options.verify)}")


def open_folder(folder: Path) -> Exported:
    """What the files of an exported folder compute. Raises ValueError where a package is missing that they need."""
    if (folder / GRAPH).is_file():
        return OnnxFolder(folder)
    return TorchFolder(folder, load_package("torch", "--verify with --run", INSTALL))


def export_codec_files(options: ExportOptions) -> None:
    assert options.run is not None and options.out is not None
    check_local("run", str(options.run))
    state, sizes = export_codec(Path(options.run))
    with staged(options.out) as folder:
        write_safetensors(state, folder, options.max_shard_mb)
        write_json(folder / "config.json", sizes)
        if (torch := torch_if_installed()) is not None:
            write_torch(torch, state, folder / "model.pth")
    print(f"export: {len(state)} tensors of codec {sizes['name']}, read back bit-equal: {options.out}")


def main() -> None:
    with main_guard():
        options = parse(ExportOptions, __doc__)
        use_compile_cache()
        if options.verify is not None:
            verify(options)
        elif options.kind == "codec":
            export_codec_files(options)
        else:
            export_run(options)


if __name__ == "__main__":
    main()
