"""Costs of one run of a compiled program on one device: matmul FLOPs, HBM traffic, collectives, Pallas kernels.

Elementwise FLOPs are not counted: they are negligible compared with matmuls, and take the time of their memory traffic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from s1_jax.planning.groups import Groups, parse_groups
from s1_jax.planning.hlo import HBM, HOST, Array, Computation, Instruction, Module

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
KERNEL = "tpu_custom_call"  # the target of a Pallas kernel
# these move no data, or the computations that they run are counted separately
FREE = set(
    "parameter tuple get-tuple-element bitcast constant after-all partition-id replica-id opt-barrier while call "
    "conditional async-start async-update async-done call-start call-update call-done add-dependency".split()
)
FREE_CALLS = {"AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound"}
STARTS, ENDS, GOES_ON = "AsyncCollectiveStart", "AsyncCollectiveDone", "async_collective_fusion_config"


@dataclass(frozen=True)
class Collective:
    """One kind of communication between the devices of each group."""

    kind: str
    bytes: float  # of one group's whole array (gathered, or before reduction); for a permute the bytes sent
    groups: Groups


@dataclass
class Counts:
    """Counts for one run of a program on one device."""

    matmul_flops: float = 0.0
    hbm_bytes: float = 0.0
    host_bytes: float = 0.0  # moved from or to the host's memory
    collectives: dict[Collective, float] = field(default_factory=dict)  # number of executions of each
    kernels: dict[str, float] = field(default_factory=dict)  # number of executions by name without suffix

    def add(self, other: Counts, times: float) -> None:
        """Add the counts of `times` runs of another program or computation."""
        self.matmul_flops += times * other.matmul_flops
        self.hbm_bytes += times * other.hbm_bytes
        self.host_bytes += times * other.host_bytes
        for collective, often in other.collectives.items():
            self.collectives[collective] = self.collectives.get(collective, 0) + often * times
        for kernel, often in other.kernels.items():
            self.kernels[kernel] = self.kernels.get(kernel, 0) + often * times


def count(module: Module, unknown_trips: int) -> Counts:
    """Count a whole program; an outermost loop of unknown length runs `unknown_trips` times."""
    total = Counts()
    for name, times in module.executions(unknown_trips).items():
        for instruction in module[name]:
            total.add(count_instruction(module, module[name], instruction), times)
    return total


def count_instruction(module: Module, computation: Computation, instruction: Instruction) -> Counts:
    """Count one execution of an instruction with what is fused into it, but without loops and calls."""
    counts = Counts(matmul_flops=matmul_flops(module, computation, instruction))
    for array_bytes, space in _traffic(module, computation, instruction):
        counts.hbm_bytes += array_bytes * (space == HBM)
        counts.host_bytes += array_bytes * (space == HOST)
    for collective in _collectives(module, computation, instruction):
        counts.collectives[collective] = counts.collectives.get(collective, 0) + 1
    for kernel in _kernels(module, instruction):
        counts.kernels[kernel] = counts.kernels.get(kernel, 0) + 1
    return counts


def _kernels(module: Module, instruction: Instruction) -> Iterator[str]:
    """Yield the names of the Pallas kernels that an instruction runs, including those in fusions."""
    if instruction.opcode == "fusion":
        for inner in module[instruction.called[0]]:
            yield from _kernels(module, inner)
    elif target(instruction) == KERNEL:
        yield re.sub(r"[.\d]+$", "", instruction.name)


# Matmuls


def matmul_flops(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Return the FLOPs of a dot, a convolution or all of them in a fusion: 2 per product, without those of padding."""
    if instruction.opcode == "fusion":
        inner = module[instruction.called[0]]
        return sum(matmul_flops(module, inner, each) for each in inner)
    if instruction.opcode == "dot":
        left = computation[instruction.operands[0]].arrays[0]
        contracted = re.findall(r"\d+", instruction.attribute("lhs_contracting_dims") or "")
        return 2.0 * instruction.arrays[0].size * np.prod([left.dims[int(dim)] for dim in contracted], dtype=float)
    if instruction.opcode == "convolution":
        left, right = (computation[name].arrays[0] for name in instruction.operands[:2])
        return _convolution_flops(instruction, left, right)
    return 0.0


def _convolution_flops(instruction: Instruction, left: Array, right: Array) -> float:
    """Return the FLOPs of a convolution; on TPU all matmuls are convolutions, with batch dimensions as spatial ones."""
    in_labels, kernel_labels, out_labels = re.split("_|->", instruction.attribute("dim_labels") or "")
    out = instruction.arrays[0]
    window = {
        key: [tuple(int(n) for n in part.split("_")) for part in value.split("x")]
        for key, value in re.findall(r"(\w+)=([-\dx_]+)", instruction.attribute("window") or "")
    }
    products = 1.0
    for number in range(len(in_labels) - 2):
        base, kernel, outputs = (
            array.dims[labels.index(str(number))]
            for array, labels in ((left, in_labels), (right, kernel_labels), (out, out_labels))
        )
        default = {"stride": 1, "lhs_dilate": 1, "rhs_dilate": 1, "pad": 0}
        stride, base_dilation, dilation, padding = (
            window[key][number][0] if key in window else value for key, value in default.items()
        )
        read = np.arange(outputs)[:, None] * stride + np.arange(kernel)[None, :] * dilation - padding
        products *= int(((read >= 0) & (read % base_dilation == 0) & (read <= (base - 1) * base_dilation)).sum())
    batch = left.dims[in_labels.index("b")] // int(instruction.attribute("batch_group_count") or 1)
    features = right.dims[kernel_labels.index("i")] * right.dims[kernel_labels.index("o")]
    return 2.0 * products * batch * features


# Collectives


def _collectives(module: Module, computation: Computation, instruction: Instruction) -> Iterator[Collective]:
    """Yield the collectives that an instruction starts; an asynchronous one counts once, at its start."""
    if instruction.opcode == "fusion":
        inner = module[instruction.called[0]]
        for each in inner:
            if not _continues(inner, each):
                yield from _collectives(module, inner, each)
        return
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return
    text = instruction.attribute("source_target_pairs" if kind == "collective-permute" else "replica_groups")
    if text and text.startswith("mesh[") and (order := re.search(r"device_ids=\(.*", instruction.attributes)):
        text = f"{text}, {order[0]}"
    groups = parse_groups(text, module.partitions)
    members = len(groups[0])
    if members == 1:
        return
    own = sum(array.bytes for name in instruction.operands for array in computation[name].arrays)
    if kind == "all-reduce" and any(user.opcode == "dynamic-slice" for user in computation.users[instruction.name]):
        kind = "reduce-scatter"  # the TPU compiler writes it as a fusion of the two
    yield Collective(kind, own * members if kind in ("all-gather", "all-to-all") else own, groups)


def _continues(computation: Computation, instruction: Instruction) -> bool:
    """Return whether an instruction continues or ends an asynchronous collective that another one started.

    The compiler repeats the collective in all fusions that run during it.
    """
    return GOES_ON in instruction.attributes and all(target(each) != STARTS for each in computation)


# Memory

Traffic = Iterator[tuple[float, int]]  # bytes, and the memory space that they are read from or written to


def _traffic(module: Module, computation: Computation, instruction: Instruction) -> Traffic:
    """Yield what a top-level instruction reads and writes; of a slice or an update only the part that is touched.

    For a Pallas kernel each operand and result counts once, although it may read blocks repeatedly or not at all. A
    result that is an operand updated in place is not counted, since it is unknown how much was written.
    """
    opcode = instruction.opcode
    if opcode in FREE or target(instruction) in FREE_CALLS:
        return
    operands = [array for name in instruction.operands for array in computation[name].arrays]
    if opcode == "fusion":
        inner = module[instruction.called[0]]
        for parameter in inner.parameters:
            yield from _read(module, inner, parameter)
        yield from _written(module, inner, instruction.arrays)
        return
    kind, _, phase = opcode.rpartition("-") if opcode.endswith(("-start", "-done")) else (opcode, "", "")
    if phase != "done":  # an asynchronous instruction reads at its start and writes at its end
        if kind in SLICES:
            yield instruction.arrays[-2 if phase else 0].bytes, operands[0].space
        elif kind in UPDATES:
            yield operands[UPDATES[kind]].bytes, operands[UPDATES[kind]].space
        else:
            yield from ((array.bytes, array.space) for array in operands)
    if phase != "start":
        if kind in UPDATES:
            begun = computation[instruction.operands[0]] if phase else instruction
            update = computation[begun.operands[UPDATES[kind]]].arrays[0]
            yield update.bytes, instruction.arrays[0].space
        else:
            kept = _in_place(instruction)
            yield from ((array.bytes, array.space) for i, array in enumerate(instruction.arrays) if i not in kept)


SLICES = ("dynamic-slice", "slice", "gather")
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # index of the operand that is written into the first, in place
VIEWS = ("bitcast", "reshape")


def _read(module: Module, computation: Computation, name: str) -> Traffic:
    """Yield what a fused computation reads of its parameter `name`."""
    arrays = computation[name].arrays
    whole = sum(array.bytes for array in arrays)
    wanted = min(_wanted(module, computation, name, whole), whole)
    for array in arrays:
        yield wanted * array.bytes / (whole or 1), array.space


def _wanted(module: Module, computation: Computation, name: str, whole: float) -> float:
    """Return the bytes that the users of an array of `whole` bytes read, summed over the users."""
    total = 0.0
    for user in computation.users[name]:
        if _shown(module, user) == name:
            total += _wanted(module, computation, user.name, whole)
        elif user.opcode in SLICES and user.operands[0] == name:
            total += user.arrays[0].bytes
        elif user.opcode in UPDATES and user.operands[0] == name:
            update = computation[user.operands[UPDATES[user.opcode]]].arrays[0]
            total += update.bytes * (user.opcode == "scatter")
        elif user.opcode == "fusion":
            inner = module[user.called[0]]
            for parameter, operand in zip(inner.parameters, user.operands, strict=True):
                total += _wanted(module, inner, parameter, whole) if operand == name else 0.0
        elif user.opcode != "tuple" and target(user) in (None, KERNEL) and not _continues(computation, user):
            total += whole
    return total


def _written(module: Module, computation: Computation, results: tuple[Array, ...]) -> Traffic:
    """Yield what a fused computation writes into its `results`."""
    root = computation[computation.root]
    if target(root) == KERNEL:
        kept = _in_place(root)
        yield from ((array.bytes, array.space) for i, array in enumerate(results) if i not in kept)
        return
    if target(root) is not None:  # of an asynchronous collective: its operand, its result, flags
        if target(root) == STARTS:
            yield results[1].bytes, results[1].space
        return
    elements = root.operands if root.opcode == "tuple" else (root.name,)
    for name, result in zip(elements, results, strict=False):
        source = computation[name]
        while shown := _shown(module, source):
            source = computation[shown]
        if source.opcode in UPDATES:
            yield computation[source.operands[UPDATES[source.opcode]]].arrays[0].bytes, result.space
        elif source.opcode == "fusion":
            yield from _written(module, module[source.called[0]], (result,))
        elif source.opcode == "get-tuple-element":
            if int(source.attribute("index") or 0) not in _in_place(computation[source.operands[0]]):
                yield result.bytes, result.space
        elif source.opcode != "parameter" and not _continues(computation, source):
            yield result.bytes, result.space


def _in_place(instruction: Instruction) -> set[int]:
    """Return the indices of a Pallas kernel's results that alias operands."""
    if target(instruction) != KERNEL:
        return set()
    pairs = instruction.attribute("output_to_operand_aliasing") or ""
    return {int(number or 0) for number in re.findall(r"\{(\d*)\}: \(", pairs)}


def _shown(module: Module, instruction: Instruction) -> str | None:
    """Return the operand that an instruction, or a fusion, only reshapes; None if it does more."""
    if instruction.opcode in VIEWS:
        return instruction.operands[0]
    if instruction.opcode != "fusion":
        return None
    inner = module[instruction.called[0]]
    source: str | None = inner.root
    while source is not None and inner[source].opcode != "parameter":
        source = _shown(module, inner[source])
    return None if source is None else instruction.operands[int(inner[source].literal)]


def target(instruction: Instruction) -> str | None:
    """Return what a custom call calls; None for other instructions."""
    if instruction.opcode != "custom-call":
        return None
    return (instruction.attribute("custom_call_target") or "").strip('"')
