"""The files of torch.save, read without PyTorch and without running any code that they name.

Such a file is a pickle beside the bytes of its storages. A pickle may name any function and have it called: here every
name becomes a class of inert objects, whatever it is, and a call makes one that keeps the arguments. Tensors are then
built from the arguments of PyTorch's own functions, as views of the mapped file.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes  # noqa: F401  makes bfloat16 known to numpy
import numpy as np

ZIP, LEGACY = b"PK", b"\x80"
"""How the two forms of a file begin: the zip archive of PyTorch 1.6 and newer, and the pickles of older ones."""
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
LOCAL_HEADER = struct.Struct("<26xHH")
"""Of a zip's record: where it states the lengths of its name and its extra field."""
TYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
PARTS_OF_MODULES = ("_modules", "_parameters", "_buffers")
"""Dicts in a pickled module that its state dict does not name."""


class Contents(NamedTuple):
    """What a file of weights holds, by dotted names, in the order of the file."""

    tensors: dict[str, np.ndarray]
    holders: dict[str, str]
    """The name of the dict that each tensor stands in."""
    kinds: dict[str, str]
    """The type of everything else, dicts and lists included."""


class Inert(dict):
    """An object of a class that is not loaded: the arguments it was made with; its items or attributes as a dict."""

    origin = ""
    args: tuple[Any, ...] = ()
    __hash__: Any = object.__hash__  # it may be a key
    __eq__ = object.__eq__

    def __new__(cls, *args: Any, **_: Any) -> "Inert":
        made = super().__new__(cls)
        made.args = args
        return made

    def __init__(self, *args: Any, **options: Any) -> None:
        """Takes no items from the arguments."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)

    def append(self, *_: Any) -> None:
        """Lets a list's or a set's elements go."""

    add = extend = append


class InertUnpickler(pickle.Unpickler):
    """Reads a pickle with inert objects for all names but OrderedDict's; a storage stays what the pickle says of it."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return type(name, (Inert,), {"origin": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_torch(path: Path) -> Contents:
    """The contents of a file of torch.save. Tensors share the mapped file's memory, which nobody can write to.

    Raises ValueError that names the file where it is none, or not whole.
    """
    with path.open("rb") as file:
        start = file.read(len(ZIP))
    if not start.startswith((ZIP, LEGACY)):
        raise _refused(path, f"one that begins with {start!r}" if start else "an empty one")
    try:
        root, storages = _read_zip(path) if start == ZIP else _read_legacy(path)
        return _contents(root, storages)
    except Exception as error:  # the bytes of a broken pickle can mean anything
        raise _refused(path, f"one that cannot be read ({type(error).__name__}: {error})") from error


def _refused(path: Path, got: str) -> ValueError:
    return ValueError(f"{path}: got {got}, wanted a whole file of torch.save; copy or download it again")


def _read_zip(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """(the unpickled object, the bytes of each storage by its key) of an archive."""
    mapped = np.memmap(path, mode="r")
    with zipfile.ZipFile(path) as archive:

        def bytes_of(info: zipfile.ZipInfo) -> np.ndarray:
            if info.compress_type != zipfile.ZIP_STORED:
                return np.frombuffer(archive.read(info), np.uint8)
            start = info.header_offset + LOCAL_HEADER.size
            start += sum(LOCAL_HEADER.unpack(mapped[info.header_offset : start].tobytes()))
            return mapped[start : start + info.file_size]

        records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "data.pkl" not in records:
            raise ValueError("a zip archive without data.pkl")
        if "byteorder" in records and bytes_of(records["byteorder"]).tobytes() != b"little":
            raise ValueError("numbers in big-endian order; save it on another machine")
        storages = {name[5:]: bytes_of(info) for name, info in records.items() if name.startswith("data/")}
        return _load(io.BytesIO(bytes_of(records["data.pkl"]).tobytes())), storages


def _read_legacy(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """As `_read_zip` for the older form: five pickles, and for each storage its number of elements and its bytes."""
    mapped, sizes, storages = np.memmap(path, mode="r"), {}, {}

    class Unpickler(InertUnpickler):
        def persistent_load(self, pid: Any) -> Any:
            kind, named, key, *_ = pid
            if kind == "module":  # a class, beside its source
                return named
            sizes[key] = _type_of(named).itemsize
            return pid

    with path.open("rb") as file:
        if _load(file) != MAGIC_NUMBER:
            raise ValueError("a pickle without PyTorch's magic number")
        for _ in ("the version of the format", "the sizes of the machine's integers"):
            _load(file)
        root = Unpickler(file).load()
        for key in _load(file):
            (count,) = struct.unpack("<q", file.read(8))
            start = file.tell()
            end = file.seek(start + count * sizes[key])
            storages[key] = mapped[start:end]
    return root, storages


def _load(file: BinaryIO) -> Any:
    return InertUnpickler(file).load()


def _contents(root: Any, storages: dict[str, np.ndarray]) -> Contents:
    """Everything below `root`, each dict and list once."""
    contents, seen = Contents({}, {}, {}), set()
    waiting: list[tuple[tuple[str, ...], str, Any]] = [((), "", root)]
    while waiting:
        path, holder, value = waiting.pop()
        name = ".".join(path)
        call = _tensor_call(value)
        if call is not None:
            contents.tensors[name] = _tensor(storages, *call)
            contents.holders[name] = holder
            continue
        contents.kinds.setdefault(name, getattr(value, "origin", type(value).__name__))
        if not isinstance(value, dict | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, item in reversed(items):
            part = () if key in PARTS_OF_MODULES else (str(key),)
            waiting.append(((*path, *part), name, item))
    return contents


def _tensor_call(value: Any) -> tuple[Any, ...] | None:
    """(storage, offset, sizes, strides, type) where `value` is a tensor, else None."""
    match getattr(value, "origin", ""), getattr(value, "args", ()):
        case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", (tensor, *_):
            return _tensor_call(tensor)
        case "torch._tensor._rebuild_from_type_v2", (make, _, args, *_):
            return _tensor_call(make(*args))
        case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", (storage, offset, sizes, strides, *_):
            return storage, offset, sizes, strides, _type_of(storage[1])
        case "torch._utils._rebuild_tensor_v3", (storage, offset, sizes, strides, _, _, dtype, *_):
            return storage, offset, sizes, strides, np.dtype(dtype.__name__)
    return None


def _type_of(storage_class: Any) -> np.dtype:
    name = storage_class.__name__
    if name not in TYPES:
        raise ValueError(f"tensors in a {name}, wanted some of {', '.join(TYPES)}")
    return np.dtype(TYPES[name])


def _tensor(
    storages: dict[str, np.ndarray], storage: Any, offset: int, sizes: Any, strides: Any, dtype: np.dtype
) -> np.ndarray:
    """A view of a storage; numpy refuses one that reaches beyond it."""
    stored, step = storages[storage[2]], dtype.itemsize
    if 0 in sizes:
        return np.empty(tuple(sizes), dtype)
    return np.ndarray(tuple(sizes), dtype, stored, offset * step, tuple(stride * step for stride in strides))
