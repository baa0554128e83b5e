"""Parser of a compiled program's text, which finds its computations and how often each of them runs.

XLA's own `cost_analysis()` counts the body of a loop once. Here a loop's counter is evaluated as in the program, so a
body counts as often as it is executed. The text is `compiled.as_text()` of optimized HLO (openxla.org/xla).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from s1_jax.errors import RunError

BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "s64": 8, "u64": 8}
BYTES |= {"bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16, "f8e4m3fn": 1, "f8e5m2": 1, "token": 0}
HBM, HOST = 0, 5  # memory spaces S(n) of the layouts; 1 is the chip's VMEM, the rest are scalars and semaphores
LONGEST_LOOP = 1_000_000  # iterations after which a loop counts as endless

_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_COMMENT = re.compile(r"/\*.*?\*/")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclass(frozen=True)
class Array:
    """One array of a shape: element type, dimensions, and the memory space of its layout."""

    dtype: str
    dims: tuple[int, ...]
    space: int = HBM

    @property
    def size(self) -> int:
        """Number of elements in the array."""
        size = 1
        for dim in self.dims:
            size *= dim
        return size

    @property
    def bytes(self) -> float:
        """Size in bytes, without the padding of tiles."""
        return self.size * BYTES.get(self.dtype, 1)


@dataclass(frozen=True)
class Instruction:
    """One instruction, from a line `name = shape opcode(operands), attributes`."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]  # for a tuple all its leaves, in order
    operands: tuple[str, ...]
    literal: str  # the text in the parentheses: the value of a constant, the number of a parameter
    attributes: str

    def attribute(self, key: str) -> str | None:
        """Return the value in `key=value` up to the next comma outside brackets, or None."""
        found = re.search(rf"(?:^|, ){re.escape(key)}=", self.attributes)
        return None if found is None else _until_comma(self.attributes, found.end())

    @cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls."""
        names = _CALLED.findall(self.attributes)
        for branches in _BRANCHES.findall(self.attributes):
            names += [name.strip().lstrip("%") for name in branches.split(",")]
        return tuple(names)


@dataclass(frozen=True)
class Computation:
    """One computation: its instructions by name, in the order of the schedule."""

    name: str
    root: str
    instructions: Mapping[str, Instruction]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def __getitem__(self, name: str) -> Instruction:
        return self.instructions[name]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, ordered by number."""
        found = [i for i in self if i.opcode == "parameter"]
        return tuple(i.name for i in sorted(found, key=lambda i: int(i.literal)))

    @cached_property
    def users(self) -> Mapping[str, tuple[Instruction, ...]]:
        """Instructions that read each instruction's result, by its name."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self:
            for operand in dict.fromkeys(instruction.operands):
                users[operand].append(instruction)
        return {name: tuple(found) for name, found in users.items()}


State = dict[int, int]  # known values of a loop's tuple, by index of the element


@dataclass(frozen=True)
class Module:
    """Whole program of one device, of which there are `partitions`."""

    computations: Mapping[str, Computation]
    entry: str
    partitions: int = 1

    def __getitem__(self, name: str) -> Computation:
        return self.computations[name]

    def executions(self, unknown_trips: int) -> dict[str, float]:
        """Return how often each computation runs in one run of the program, without those fused into others.

        Every branch of a conditional counts as taken, which gives an upper bound. A loop of the entry computation whose
        bound is an argument runs `unknown_trips` times. Raises RunError for such a loop inside another computation.
        """
        times: dict[str, float] = {}

        def run(name: str, factor: float, state: State) -> None:
            times[name] = times.get(name, 0) + factor
            for instruction in self[name]:
                trips, kept = self.trips(name, instruction, state)
                for called in instruction.called if trips != 0 else ():
                    run(called, factor * (unknown_trips if trips is None else trips), kept)

        run(self.entry, 1, {})
        return times

    def trips(self, name: str, instruction: Instruction, state: State) -> tuple[int | None, State]:
        """Return how often an instruction of computation `name` runs what it calls, and constants in a loop's state.

        `state` has the known values of the loop whose body the computation is. The number is None for a loop of the
        entry computation whose bound is an argument, and 0 for fusions. Raises RunError for such a loop elsewhere.
        """
        if instruction.opcode != "while":
            return int(instruction.opcode in ("call", "conditional", "async-start", "call-start")), {}
        trips, kept = trip_count(self, self[name], instruction, state)
        if trips is None and name != self.entry:
            raise RunError(
                f"the compiled program has an inner loop of unknown length, {instruction.name}; "
                "its cost cannot be planned"
            )
        return trips, kept


def parse(text: str) -> Module:
    """Parse the text of `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    entry, name, root = "", "", ""
    instructions: dict[str, Instruction] = {}
    partitions = re.search(r"num_partitions=(\d+)", text[: text.find("\n")])
    for raw in text.splitlines():
        if (header := _HEADER.match(raw)) and not raw.startswith(" "):
            name, instructions, root = header[2], {}, ""
            entry = name if header[1] else entry
        elif raw == "}" or raw.startswith("}, execution_thread="):
            computations[name] = Computation(name, root, instructions)
        elif raw.startswith("  ") and " = " in raw:
            line = raw.strip()
            instruction = _instruction(line.removeprefix("ROOT "))
            instructions[instruction.name] = instruction
            if line.startswith("ROOT "):
                root = instruction.name
    return Module(computations, entry, int(partitions[1]) if partitions else 1)


def trip_count(module: Module, computation: Computation, loop: Instruction, state: State) -> tuple[int | None, State]:
    """Return how often the body of a `while` in `computation` runs, and the constants in its state.

    `state` has the known values of the loop whose body `computation` itself is. The count is None for a loop whose
    bound or start is only known when the program runs.
    """
    condition, body = (module[(loop.attribute(key) or "").lstrip("%")] for key in ("condition", "body"))
    argument = computation[loop.operands[0]]
    first = dict(enumerate(argument.operands if argument.opcode == "tuple" else ()))
    following = dict(enumerate(body[body.root].operands if body[body.root].opcode == "tuple" else ()))
    start = {i: value for i, name in first.items() if (value := _value(module, computation, name, state)) is not None}
    kept = {i: value for i, value in start.items() if i in following and _element(body, following[i]) == i}
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known[1]), kept
    counters = [i for i in _elements(condition) if i in start]
    now: State = {i: start[i] for i in counters}
    for trip in range(LONGEST_LOOP):
        again = _value(module, condition, condition.root, now)
        if not again:
            return None if again is None else trip, kept
        after = {i: _value(module, body, following[i], {**kept, **now}) for i in counters}
        now = {i: value for i, value in after.items() if value is not None}
    return None, kept


def _elements(condition: Computation) -> set[int]:
    """Return the indices of the elements of a loop's state that its condition reads."""
    return {i for name in condition.instructions if (i := _element(condition, name)) is not None}


def _element(computation: Computation, name: str) -> int | None:
    """Return the index of the loop's element that an instruction passes on unchanged; None if it is not one."""
    instruction = computation[name]
    if instruction.opcode != "get-tuple-element" or computation[instruction.operands[0]].opcode != "parameter":
        return None
    return int(instruction.attribute("index") or 0)


def _value(module: Module, computation: Computation, name: str, state: State) -> int | None:
    """Evaluate an integer instruction, with `state` for the elements of a loop's tuple; None if it is unknown."""
    instruction = computation[name]
    if instruction.opcode == "constant":
        return _integer(instruction.literal)
    if instruction.opcode == "get-tuple-element":
        source = computation[instruction.operands[0]]
        index = int(instruction.attribute("index") or 0)
        if source.opcode == "parameter":
            return state.get(index)
        return _value(module, computation, source.operands[index], state) if source.opcode == "tuple" else None
    if instruction.opcode == "parameter":
        return state.get(-1 - int(instruction.literal))  # parameters of a fusion have negative indices; see below
    values = [_value(module, computation, operand, state) for operand in instruction.operands]
    if instruction.opcode in ("fusion", "call"):
        inner = module[instruction.called[0]]
        arguments = {-1 - number: value for number, value in enumerate(values) if value is not None}
        return _value(module, inner, inner.root, arguments)
    known = [value for value in values if value is not None]
    if instruction.opcode == "and" and known and instruction.arrays[0].dtype == "pred":
        return int(all(known))  # a loop that may also end for an unknown reason runs to the bound that is known
    if len(known) < len(values) or not known:
        return None
    if instruction.opcode == "compare":
        return int(COMPARISONS[instruction.attribute("direction") or ""](known[0], known[1]))
    operation = OPERATIONS.get(instruction.opcode)
    return None if operation is None else operation(*known)


OPERATIONS: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("copy", "bitcast", "convert", "reshape"), lambda x: x),
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "and": lambda x, y: x & y,
    "minimum": min,
    "maximum": max,
}
COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "LT": lambda x, y: x < y,
    "LE": lambda x, y: x <= y,
    "GT": lambda x, y: x > y,
    "GE": lambda x, y: x >= y,
    "EQ": lambda x, y: x == y,
    "NE": lambda x, y: x != y,
}


def _integer(literal: str) -> int | None:
    if literal in ("true", "false"):
        return int(literal == "true")
    return int(literal) if re.fullmatch(r"-?\d+", literal) else None


def _instruction(line: str) -> Instruction:
    name, rest = _COMMENT.sub("", line).split(" = ", 1)
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    end = _closing(rest, opening)
    inside, attributes = rest[opening + 1 : end - 1], rest[end:].removeprefix(",").strip()
    opcode = rest[:opening]
    named = opcode not in ("constant", "parameter")
    operands = tuple(re.findall(r"%([\w.\-]+)", inside)) if named else ()
    return Instruction(name.lstrip("%"), opcode, _arrays(shape), operands, inside, attributes)


def _arrays(shape: str) -> tuple[Array, ...]:
    found = []
    for dtype, dims, layout in _ARRAY.findall(shape):
        space = re.search(r"S\((\d+)\)", layout)
        sizes = tuple(int(dim.lstrip("<=")) for dim in dims.split(",") if dim)
        found.append(Array(dtype, sizes, int(space[1]) if space else HBM))
    return tuple(found)


def _closing(text: str, opening: int) -> int:
    """Return the index after the parenthesis that closes the one at `opening`."""
    depth = 0
    for index in range(opening, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if not depth:
            return index + 1
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def _until_comma(text: str, start: int) -> str:
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] in "([{") - (text[index] in ")]}")
        if depth < 0 or (not depth and text[index] == ","):
            return text[start:index]
    return text[start:]
