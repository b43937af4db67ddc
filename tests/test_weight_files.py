"""Laws of reading weights: all tensors of torch.save, none of a file's code, one clear error for a broken file."""

import argparse
import datetime
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from uniaudio_jax.import_torch import read_noted
from uniaudio_jax.torch_files import read_torch
from uniaudio_jax.trees import check_arrays
from uniaudio_jax.weight_files import read_weights

torch = pytest.importorskip("torch")
ZIP, LEGACY = True, False
WANTED = ("norm.weight", "norm.bias", "up.0.weight")


def weights(seed: int = 0) -> dict[str, Any]:
    made = torch.Generator().manual_seed(seed)
    shapes = {"norm.weight": (3,), "norm.bias": (3,), "up.0.weight": (5, 3)}
    return {name: torch.randn(shape, generator=made) for name, shape in shapes.items()}


def assert_are_weights(tensors: dict[str, np.ndarray], seed: int = 0) -> None:
    wanted = weights(seed)
    assert tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy(), strict=True)


@pytest.mark.parametrize("form", [ZIP, LEGACY])
def test_a_tensor_of_any_type_and_layout_is_that_of_pytorch(form, tmp_path):
    base = torch.arange(77).reshape(7, 11)
    types = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    saved = {str(kind): base.to(kind) for kind in types}
    saved |= {"turned": base.float().T[3:, 2:5], "strided": base[1::2, ::3], "one": base[5, 2], "none": base[:0]}
    saved |= {"repeated": base[:1].expand(5, 11), "parameter": torch.nn.Parameter(base.float())}
    saved |= {"eight": base.to(torch.float8_e4m3fn), "unsigned": base.to(torch.uint16)}
    torch.save(saved, tmp_path / "a.pth", _use_new_zipfile_serialization=form)
    tensors = read_torch(tmp_path / "a.pth").tensors
    assert tensors.keys() == saved.keys()
    for name, tensor in saved.items():
        assert tensors[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(tensors[name].astype(np.float64), tensor.detach().double().numpy(), strict=True)


@pytest.mark.parametrize("form", [ZIP, LEGACY])
def test_tied_weights_share_the_mapped_file(form, tmp_path):
    tied = torch.ones(13)
    torch.save({"a": tied, "b": tied[3:], "c": torch.ones(13)}, tmp_path / "a.pt", _use_new_zipfile_serialization=form)
    a, b, c = read_torch(tmp_path / "a.pt").tensors.values()
    assert np.shares_memory(a, b) and not np.shares_memory(a, c)
    assert not a.flags.writeable and not a.flags.owndata


def test_a_pickled_module_has_the_names_of_its_state_dict(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    torch.save(module, tmp_path / "a.pth")
    tensors = read_torch(tmp_path / "a.pth").tensors
    assert {name: array.shape for name, array in tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in module.state_dict().items()
    }


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".bin"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "model.", "generator.", "net.", "net._orig_mod.module."]
)
@pytest.mark.parametrize("keys", [(), ("model",), ("state_dict",), ("params",), ("state", "generator")])
def test_weights_are_found_below_any_key_and_prefix(keys, prefix, suffix, tmp_path):
    state = {prefix + name: tensor for name, tensor in weights().items()}
    for key in reversed(keys):
        state = {"step": 17, key: state}
    torch.save(state, tmp_path / f"a{suffix}")
    assert_are_weights(read_weights(tmp_path / f"a{suffix}", WANTED).tensors)


def trainers_checkpoint() -> dict:
    """What the public trainer saves: the weights beside its options, times and the optimizer."""
    module = torch.nn.Linear(3, 5)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "time": datetime.timedelta(seconds=7),
        "args": argparse.Namespace(lr=0.1, out=Path("runs")),
        "best": np.float64(0.5),
        "optimizer": optimizer.state_dict(),
        "model": {f"module.{name}": tensor for name, tensor in weights().items()},
    }


def test_what_is_passed_over_is_named(tmp_path):
    torch.save(trainers_checkpoint(), tmp_path / "a.pth")
    tensors, note = read_weights(tmp_path / "a.pth", WANTED)
    assert_are_weights(tensors)
    assert note == (
        "taken from model.module; passed over: epoch (int), time (datetime.timedelta), args (argparse.Namespace), "
        "best (numpy._core.multiarray.scalar), optimizer (6 tensors)"
    )


def test_of_several_that_fit_the_first_is_taken_and_the_others_are_named(tmp_path):
    torch.save({"model": weights(3), "ema": weights(5), "step": torch.tensor(7)}, tmp_path / "a.pth")
    tensors, note = read_weights(tmp_path / "a.pth", WANTED)
    assert_are_weights(tensors, 3)
    assert note == "taken from model; ema fits as well; passed over: ema (3 tensors), step (1 tensor)"


def test_the_prefix_with_most_names_is_taken_with_all_that_stands_beside_them(tmp_path):
    few = {"norm.weight": torch.ones(2)}
    torch.save({"old": few, "new": weights() | {"more": torch.ones(7)}}, tmp_path / "a.pth")
    tensors = read_weights(tmp_path / "a.pth", WANTED).tensors
    assert tensors.keys() == {*WANTED, "more"}


def test_plain_weights_have_no_note_in_either_kind_of_file(tmp_path):
    torch.save(weights(), tmp_path / "a.pth")
    save_file({name: tensor.numpy() for name, tensor in weights().items()}, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        tensors, note = read_weights(tmp_path / name, WANTED)
        assert_are_weights(tensors)
        assert note == ""


class Call:
    """An object whose pickle asks to call a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("form", [ZIP, LEGACY])
def test_no_code_of_a_file_runs(form, tmp_path):
    (tmp_path / "precious").write_text("kept")
    touched = tmp_path / "touched"
    attacks = {
        "system": Call(os.system, f"touch {touched}"),
        "eval": Call(eval, f"open({str(touched)!r}, 'w')"),
        "exec": Call(exec, f"open({str(touched)!r}, 'w')"),
        "remove": Call(os.remove, str(tmp_path / "precious")),
        "open": Call(open, str(touched), "w"),
        "loads": Call(pickle.loads, pickle.dumps(Call(os.mkdir, str(touched)))),
        "import": Call(__import__, "tests.peak_memory"),
    }
    torch.save(attacks | {"model": weights()}, tmp_path / "a.pth", _use_new_zipfile_serialization=form)
    before = sorted(tmp_path.iterdir())
    contents = read_torch(tmp_path / "a.pth")
    assert contents.kinds["system"] == "posix.system" and contents.kinds["eval"].endswith("eval")
    assert_are_weights(read_weights(tmp_path / "a.pth", WANTED).tensors)
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "precious").read_text() == "kept"


def refusal(path: Path) -> str:
    """What the error about a file says; it must name the file."""
    with pytest.raises(ValueError) as error:
        read_weights(path, WANTED)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "got an empty one"),
        (b"<html>not found</html>", "got one that begins with b'<h'"),
        (b"version https://git-lfs", "got one that begins with b've'"),
        (pickle.dumps({"a": 3}), "a pickle without PyTorch's magic number"),
        (b"PK\3\4 and no more", "File is not a zip file"),
    ],
)
def test_a_file_of_another_kind_is_refused(content, told, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    assert told in refusal(tmp_path / "a.pth")


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "a.pth").mkdir()
    assert "no such file" in refusal(tmp_path / "a.pth")
    assert "no such file" in refusal(tmp_path / "b.safetensors")


def test_another_zip_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/weights.txt", "1 2 3")
    assert "a zip archive without data.pkl" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("form", [ZIP, LEGACY])
def test_a_file_that_was_cut_off_is_refused(form, tmp_path):
    torch.save(weights(), tmp_path / "whole.pth", _use_new_zipfile_serialization=form)
    whole = (tmp_path / "whole.pth").read_bytes()
    for size in [*range(2, len(whole), 61), len(whole) - 1]:
        (tmp_path / "a.pth").write_bytes(whole[:size])
        assert "wanted a whole file of torch.save" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("form", [ZIP, LEGACY])
def test_changed_bytes_give_tensors_or_one_clear_error(form, tmp_path):
    torch.save(trainers_checkpoint(), tmp_path / "a.pth", _use_new_zipfile_serialization=form)
    whole, rng = (tmp_path / "a.pth").read_bytes(), np.random.default_rng(0)
    for _ in range(211):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] = rng.integers(256)
        (tmp_path / "b.pth").write_bytes(changed)
        try:
            read_weights(tmp_path / "b.pth", WANTED)
        except ValueError as error:
            assert str(error).startswith(f"{tmp_path / 'b.pth'}: ")


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[:5],
        lambda whole: b"",
        lambda whole: struct.pack("<Q", 2**62) + whole[8:],
        lambda whole: whole.replace(b"[5,3]", b"[7,3]"),
        lambda whole: whole.replace(b'"data_offsets":[0,12]', b'"data_offsets":[0,92]'),
        lambda whole: whole.replace(b'"data_offsets":[0,12]', b'"data_offsets":[4,16]'),
        lambda whole: struct.pack("<Q", struct.unpack("<Q", whole[:8])[0] + 7) + whole[8:],
        lambda whole: whole.replace(b"F32", b"X32"),
        lambda whole: whole[:8] + b"\xff" + whole[9:],
    ],
    ids=[
        "cut",
        "no header",
        "empty",
        "huge header",
        "lying shape",
        "offsets outside",
        "offsets that overlap",
        "wrong header",
        "unknown type",
        "not UTF-8",
    ],
)
def test_a_broken_safetensors_file_is_refused(change, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({name: tensor.numpy() for name, tensor in weights().items()}, path)
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    assert path.read_bytes() != whole
    assert "not a whole safetensors file" in refusal(path) and "\n" not in refusal(path)


def test_a_pickle_that_calls_a_function_and_holds_nothing_else_is_refused_and_not_called(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Call(os.system, f"touch {tmp_path / 'touched'}")))
    assert "a pickle without PyTorch's magic number" in refusal(tmp_path / "a.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_weights_of_another_model_are_refused_with_names_of_both(tmp_path):
    torch.save({"conv.weight": torch.ones(3), "epoch": 7}, tmp_path / "a.pth")
    told = refusal(tmp_path / "a.pth")
    assert "got 1 tensors (conv.weight)" in told and "norm.weight, norm.bias, up.0.weight" in told


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_any_shard_stands_for_all_that_lie_beside_it(suffix, tmp_path):
    paths = [tmp_path / f"model-0000{part}-of-00003{suffix}" for part in (1, 2, 3)]
    for path, (name, tensor) in zip(paths, weights().items(), strict=True):
        save_file({name: tensor.numpy()}, path) if suffix == ".safetensors" else torch.save({name: tensor}, path)
    tensors, note = read_weights(paths[1], WANTED)
    assert_are_weights(tensors)
    assert note == "read with the other shards beside it, 3 in all"
    paths[2].unlink()
    assert f"one of 3 shards, of which 1 are not beside it ({paths[2].name})" in refusal(paths[0])


def write_index(folder: Path, names: Any) -> Path:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def test_an_index_stands_for_the_shards_that_it_names(tmp_path):
    files = dict(zip(weights(), ("a.safetensors", "b.safetensors", "a.safetensors"), strict=True))
    for file in set(files.values()):
        save_file({n: t.numpy() for n, t in weights().items() if files[n] == file}, tmp_path / file)
    tensors, note = read_weights(write_index(tmp_path, files), WANTED)
    assert_are_weights(tensors)
    assert note == "read with the other shards beside it, 2 in all"
    (tmp_path / "b.safetensors").unlink()
    assert "one of 2 shards, of which 1 are not beside it (b.safetensors)" in refusal(write_index(tmp_path, files))


@pytest.mark.parametrize("names", [{"a": "../a.safetensors"}, {"a": "/etc/passwd"}, {}, ["a"], {"a": ".."}, {"a": ""}])
def test_an_index_names_files_beside_it_alone(names, tmp_path):
    assert "wanted the index of shards" in refusal(write_index(tmp_path, names))


def test_float64_is_rounded_and_said(tmp_path):
    torch.save(weights() | {"norm.bias": weights()["norm.bias"].double()}, tmp_path / "a.pth")
    tensors, note = read_weights(tmp_path / "a.pth", WANTED)
    assert_are_weights(tensors)
    assert note == "rounded 1 of 3 tensors from float64 to float32"


def test_weights_that_are_not_finite_are_not_imported(tmp_path):
    broken = {"norm.bias": torch.tensor([1.0, 2.0, float("nan")]), "up.0.weight": torch.full((5, 3), float("inf"))}
    torch.save(weights() | broken, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"nan.pth: 2 of 3 tensors hold NaN or infinite values \(first: norm.bias\)"):
        read_noted(tmp_path / "nan.pth", WANTED)


def test_of_many_arrays_that_do_not_fit_seven_are_named():
    with pytest.raises(ValueError, match="^here: 11 arrays do not fit; mend") as error:
        check_arrays("here", {}, {f"a{number}": (3,) for number in range(11)}, "mend")
    assert str(error.value).count("missing") == 7 and str(error.value).endswith("\n  and 4 more")
