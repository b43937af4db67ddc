"""What a compiled program moves, read off its text: collectives between devices, and bytes through a device's memory.

The text names each instruction once, so loops are walked with their trip counts. The TPU compiler spreads a collective
over several fusions, each of which holds it; it is counted where it starts.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,]*)\](\{[^}]*\})?")
_FREE = set(
    "parameter tuple get-tuple-element bitcast constant while conditional call after-all partition-id replica-id iota "
    "optimization-barrier copy-start copy-done".split()
)
"""Instructions that move no bytes of their own, or whose parts are counted."""


class Instruction(NamedTuple):
    """One line of a computation: its result's shape as text, opcode, names of operands, and the rest of the line."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    root: bool


@dataclass
class Moved:
    """Collectives of a program on one device: how many of each kind run, and the bytes of the whole arrays that they
    gather, reduce or send."""

    counts: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, float] = field(default_factory=dict)
    in_loops: dict[str, float] = field(default_factory=dict)
    """Of the bytes by kind, those moved inside loops."""
    memory_bytes: float = 0.0
    """Bytes that the program's instructions read from and write to the device's main memory."""


def read_moved(text: str) -> Moved:
    """The collectives and memory traffic of a compiled program, given `compiled.as_text()`.

    Raises ValueError when the text has no entry, or a loop whose trip count cannot be read.
    """
    computations, entry = parse(text)
    moved = Moved()
    _walk(computations, entry, 1.0, 0, moved)
    return moved


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The instructions of each computation by its name, and the name of the entry."""
    computations: dict[str, list[Instruction]] = {}
    entry, name = "", None
    for line in text.splitlines():
        if line.endswith("{") and (line.startswith("%") or line.startswith("ENTRY")):
            name = line.removeprefix("ENTRY ").split()[0].lstrip("%")
            entry = name if line.startswith("ENTRY") else entry
            computations[name] = []
        elif line.rstrip() == "}" or line.startswith("}, execution_thread"):  # others end values of several lines
            name = None
        elif name is not None and " = " in line:
            computations[name].append(_instruction(line))
    if not entry:
        raise ValueError("compiled program: its text has no ENTRY computation; give the text of `compiled.as_text()`")
    return computations, entry


def array_bytes(shape: str, main_memory_only: bool = False) -> float:
    """Bytes of an array or of all arrays of a tuple; `S(1)` in a layout means a TPU's small fast memory."""
    total = 0.0
    for kind, sizes, layout in _ARRAY.findall(shape):
        if main_memory_only and "S(" in layout:
            continue
        total += _item_bytes(kind) * math.prod(int(size) for size in sizes.split(",") if size)
    return total


def _item_bytes(kind: str) -> float:
    """Bytes of one number of a kind such as f32, bf16 or f8e4m3fn."""
    return _BYTES[kind] if kind in _BYTES else int(re.findall(r"\d+", kind)[0]) / 8


def _instruction(line: str) -> Instruction:
    left, right = line.strip().split(" = ", 1)
    shape, after = _balanced(right) if right.startswith("(") else tuple(right.split(" ", 1))
    opcode, inside = after.strip().split("(", 1)
    arguments, rest = _balanced("(" + inside)
    operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
    return Instruction(
        left.removeprefix("ROOT ").lstrip("%"), shape, opcode, operands, arguments + rest, left.startswith("ROOT")
    )


def _balanced(text: str) -> tuple[str, str]:
    """The bracket that `text` begins with, and what follows it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :]
    return text, ""


def _called(instruction: Instruction, key: str) -> list[str]:
    return re.findall(rf"{key}=%?([\w.\-]+)", instruction.rest)


def _walk(computations: Mapping[str, list[Instruction]], name: str, times: float, depth: int, moved: Moved) -> None:
    """Adds what the computation does, which runs `times` times inside `depth` loops."""
    shapes = {instruction.name: instruction.shape for instruction in computations[name]}
    for instruction in computations[name]:
        if instruction.opcode == "while":
            trips = _trips(computations, instruction)
            _walk(computations, _called(instruction, "body")[0], times * trips, depth + 1, moved)
        for called in _branches(instruction):
            _walk(computations, called, times, depth, moved)
        for collective, scattered in _collectives(computations, instruction):
            _add_collective(collective, scattered, times, depth, moved)
        if instruction.opcode not in _FREE:
            moved.memory_bytes += times * _traffic(computations, instruction, shapes)


def _branches(instruction: Instruction) -> list[str]:
    """The computations that a call or a conditional runs; of a conditional all, as any may be taken."""
    if instruction.opcode == "call":
        return _called(instruction, "to_apply")
    if instruction.opcode == "conditional":
        listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
        names = listed.group(1).replace("%", "").split(", ") if listed else []
        return names + _called(instruction, "true_computation") + _called(instruction, "false_computation")
    return []


def _collectives(
    computations: Mapping[str, list[Instruction]], instruction: Instruction, scattered: bool = False
) -> Iterator[tuple[Instruction, bool]]:
    """The collectives that an instruction is or starts, each with whether only a part of its result is kept."""
    if instruction.opcode.removesuffix("-start") in COLLECTIVES:
        yield instruction, scattered
    elif instruction.opcode in ("fusion", "async-start"):
        for called in _called(instruction, "calls"):
            goes_on = _goes_on(called, computations[called])  # in it another one may start, as a fusion of its own
            for inner in computations[called]:
                if not goes_on or inner.opcode == "fusion":
                    yield from _collectives(computations, inner, scattered or called.startswith("all-reduce-scatter"))


def _goes_on(name: str, body: list[Instruction]) -> bool:
    """Whether a fused computation is a later step of a collective that another one has started."""
    return name.startswith("async_collective_fusion") or any("AsyncCollectiveDone" in one.rest for one in body)


def _add_collective(instruction: Instruction, scattered: bool, times: float, depth: int, moved: Moved) -> None:
    kind = instruction.opcode.removesuffix("-start")
    started = instruction.opcode.endswith("-start")
    size = _started_bytes(instruction) if started else array_bytes(instruction.shape)
    if kind == "reduce-scatter" and not started:
        size *= _group_size(instruction)
    if kind == "all-reduce" and scattered:
        kind = "reduce-scatter"
    moved.counts[kind] = moved.counts.get(kind, 0.0) + times
    moved.bytes[kind] = moved.bytes.get(kind, 0.0) + times * size
    moved.in_loops[kind] = moved.in_loops.get(kind, 0.0) + (times * size if depth else 0.0)


def _started_bytes(instruction: Instruction) -> float:
    """Bytes of the whole arrays that an instruction starts to move; its tuple may hold operands, then results."""
    arrays = [array_bytes(match.group(0)) for match in _ARRAY.finditer(instruction.shape)]
    if instruction.opcode == "all-gather-start":
        return sum(arrays[len(arrays) // 2 :])
    if instruction.opcode == "reduce-scatter-start":
        return sum(arrays[: len(arrays) // 2])
    return arrays[1] if instruction.opcode == "collective-permute-start" else sum(arrays)


def _group_size(instruction: Instruction) -> int:
    """Devices that take part in one group of a collective."""
    groups = re.search(r"replica_groups=\[(\d+),(\d+)\]", instruction.rest)
    if groups:
        return int(groups.group(2))
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", instruction.rest)
    if listed:
        return len(listed.group(1).split(","))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", instruction.rest)
    if named:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", named.group(2)))
    return 1


def _trips(computations: Mapping[str, list[Instruction]], loop: Instruction) -> float:
    """How often a loop runs: as stated, or where it counts from 0 up, the constant that it compares with."""
    stated = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if stated:
        return float(stated.group(1))
    condition = computations[_called(loop, "condition")[0]]
    constants = {
        one.name: int(one.rest.strip("(").split(")")[0])
        for one in condition
        if one.opcode == "constant" and re.match(r"[su]\d+\[\]", one.shape)
    }
    root = next(one for one in condition if one.root)
    bounds = [constants[name] for name in root.operands if name in constants]
    if len(bounds) != 1:
        raise ValueError(f"compiled program: cannot read how often the loop {loop.name} runs")
    return float(bounds[0])


def _traffic(
    computations: Mapping[str, list[Instruction]], instruction: Instruction, shapes: Mapping[str, str]
) -> float:
    """Bytes of main memory that an instruction reads and writes.

    Of an operand out of which it only cuts a slice, the slice counts; of a result in which it only sets a slice, the
    slice, written.
    """
    if instruction.opcode in ("dynamic-slice", "gather"):
        return 2 * array_bytes(instruction.shape, True)
    if instruction.opcode == "dynamic-update-slice":
        return 2 * array_bytes(shapes.get(instruction.operands[1], ""), True)
    written = array_bytes(instruction.shape, True)
    read = {name: array_bytes(shapes.get(name, ""), True) for name in instruction.operands}
    if instruction.opcode == "fusion":
        body = computations[_called(instruction, "calls")[0]]
        return _fused_traffic(body, instruction, written, read)
    return written + sum(read.values())


def _fused_traffic(body: list[Instruction], instruction: Instruction, written: float, read: dict[str, float]) -> float:
    inner = {one.name: one.shape for one in body}
    users: dict[str, list[Instruction]] = defaultdict(list)
    for one in body:
        for name in one.operands:
            users[name].append(one)
    for one in body:
        if one.opcode != "parameter":
            continue
        outer = instruction.operands[int(one.rest.strip("(").split(")")[0])]
        uses = users[one.name]
        if uses and all(use.opcode == "dynamic-slice" for use in uses):
            read[outer] = min(read[outer], sum(array_bytes(use.shape) for use in uses))
        elif uses and all(use.opcode == "dynamic-update-slice" and use.operands[0] == one.name for use in uses):
            changed = sum(array_bytes(inner[use.operands[1]]) for use in uses)
            written = written - read[outer] + changed if written >= read[outer] else changed
            read[outer] = 0.0
    return written + sum(read.values())
