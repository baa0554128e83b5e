"""Time of a compiled program in the order of its schedule, with the communication that it hides and waits for.

The chip runs one instruction after another. Each takes the longer of its matmuls and its HBM traffic, at the rates of
`roofline`; a synchronous collective takes its time on the links. An asynchronous collective runs from its start on, and
the chip waits at its end for what is left of it. A link carries one collective at a time in each direction: in the
order of the program, each begins as soon as all of its links are free.

Asynchronous copies, and the memory traffic of asynchronous collectives, use HBM while nothing else does: during matmuls
that read less than HBM could bring, and while the chip waits for links. What is left at their end is waited for.

A collective takes at least `hop_latency` for each link that its data crosses one after another. All iterations of a
loop take as long as the first one that finds the links free, and all branches of a conditional are taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from jax.sharding import Mesh

from s1_jax.chips import Chip
from s1_jax.planning.counts import COLLECTIVES, ENDS, STARTS, Collective, count_instruction, target
from s1_jax.planning.groups import mesh_axes
from s1_jax.planning.hlo import Computation, Instruction, Module, State
from s1_jax.planning.roofline import MATMUL_SHARE, Torus
from s1_jax.torus import Link

HOP_LATENCY = 1e-6  # seconds; "How to Scale Your Model", chapter 3, "A note on ICI latency": typically around 1 us
SCHEDULED = ("scheduled", "exposed", "hidden", "latency")  # totals of a `Timing` in JSON objects
Kind = tuple[str, str]  # of a collective: its name and its mesh axes, such as ("all-gather", "fsdp+context")


class Kernel(NamedTuple):
    """What one execution of a Pallas kernel does in addition to what the program's text tells."""

    flops: float = 0.0
    hbm_bytes: float = 0.0  # negative for what it leaves out


@dataclass
class Timing:
    """Times of a program, or of a part of it, in seconds."""

    seconds: float = 0.0
    hbm: float = 0.0  # of `seconds`, with traffic in HBM
    latency: float = 0.0  # of `seconds`, what would be saved if links had no latency
    links: Counter[Kind] = field(default_factory=Counter)  # time that collectives take on the links
    exposed: Counter[Kind] = field(default_factory=Counter)  # of it, what the chip waits for

    @property
    def hidden(self) -> Counter[Kind]:
        """Time of collectives on the links for which the chip does not wait."""
        return Counter({kind: max(total - self.exposed[kind], 0.0) for kind, total in self.links.items()})

    def to_dict(self) -> dict[str, float]:
        """Return the totals under their names in JSON objects."""
        totals = (self.seconds, self.exposed.total(), self.hidden.total(), self.latency)
        return dict(zip(SCHEDULED, totals, strict=True))

    def add(self, other: Timing, times: float = 1.0) -> None:
        """Add `times` runs of another part."""
        self.seconds += times * other.seconds
        self.hbm += times * other.hbm
        self.latency += times * other.latency
        for mine, others in ((self.links, other.links), (self.exposed, other.exposed)):
            for kind, spent in others.items():
                mine[kind] += times * spent  # type: ignore[assignment]


class _Transfer(NamedTuple):
    """One collective on its links."""

    kind: Kind
    seconds: float
    latency: float  # it takes at least this long
    links: frozenset[Link]


@dataclass(eq=False)
class _Flight:
    """One transfer that has been given its time on the links."""

    kind: Kind
    begin: float
    end: float
    before: _Flight | None  # which occupied a link until `begin`


@dataclass(frozen=True)
class _Step:
    """One instruction that takes time."""

    name: str
    compute: float
    hbm: float
    kernels: Mapping[str, float]
    transfers: tuple[_Transfer, ...]
    continues: bool  # transfers and traffic run on until a step that ends them
    ends: str | None  # name of the step that it ends
    calls: tuple[tuple[_Step, ...], ...]
    trips: int | None  # how often it runs them; None for a number that is given later


class Schedule:
    """Schedule of a compiled program on the links of a mesh."""

    def __init__(self, module: Module, mesh: Mesh, chip: Chip, hop_latency: float = 0.0) -> None:
        self._module, self._mesh, self._chip, self._hop_latency = module, mesh, chip, hop_latency
        self._torus = Torus(mesh, chip)
        self._transfers: dict[Collective, _Transfer] = {}
        self._entry = self._steps(module.entry, {})

    def timing(self, unknown_trips: int, kernels: Mapping[str, Kernel]) -> Timing:
        """Return the times of one run; an outermost loop of unknown length runs `unknown_trips` times."""
        told, quick = (
            _Clock(unknown_trips, kernels, self._chip, latency).run(self._entry) for latency in (True, False)
        )
        told.latency = told.seconds - quick.seconds
        return told

    def _steps(self, name: str, state: State) -> tuple[_Step, ...]:
        """Return the steps of a computation, with those that it calls."""
        computation = self._module[name]
        begun = dict(_pairs(self._module, computation))
        ended = {start: end for end, start in begun.items()}
        steps = []
        for instruction in computation:
            counts = count_instruction(self._module, computation, instruction)
            trips, kept = self._module.trips(name, instruction, state)
            calls: tuple[tuple[_Step, ...], ...] = ()
            if instruction.opcode in ("async-start", "call-start", "call-update"):
                for called in _begun(computation, instruction):
                    for inner in self._module[called]:
                        counts.add(count_instruction(self._module, self._module[called], inner), 1)
            elif trips != 0:
                calls = tuple(self._steps(called, kept) for called in instruction.called)
            if instruction.name in ended:  # the end's traffic has the same time to hide in
                end = computation[ended[instruction.name]]
                counts.hbm_bytes += count_instruction(self._module, computation, end).hbm_bytes
            elif instruction.name in begun:
                counts.hbm_bytes = 0.0
            step = _Step(
                name=instruction.name,
                compute=counts.matmul_flops / (MATMUL_SHARE * self._chip.peak_flops),
                hbm=counts.hbm_bytes / self._chip.hbm_bandwidth,
                kernels=counts.kernels,
                transfers=tuple(
                    self._transfer(each) for each, times in counts.collectives.items() for _ in range(int(times))
                ),
                continues=instruction.name in ended,
                ends=begun.get(instruction.name),
                calls=calls,
                trips=trips,
            )
            if step.compute or step.hbm or step.kernels or step.transfers or step.ends or step.calls:
                steps.append(step)
        return tuple(steps)

    def _transfer(self, collective: Collective) -> _Transfer:
        if collective not in self._transfers:
            kind = collective.kind, "+".join(mesh_axes(collective.groups, self._mesh))
            latency = self._hop_latency * self._torus.hops(collective)
            times = self._torus.seconds(collective), latency
            self._transfers[collective] = _Transfer(kind, *times, self._torus.links(collective))
        return self._transfers[collective]


class _Clock:
    """One run of steps: the time that has passed, and what is under way."""

    def __init__(self, unknown_trips: int, kernels: Mapping[str, Kernel], chip: Chip, latency: bool) -> None:
        self._unknown_trips, self._kernels, self._chip, self._latency = unknown_trips, kernels, chip, latency
        self._spent = Timing()
        self._last: dict[Link, _Flight] = {}
        self._flights: dict[str, list[_Flight]] = {}  # by the step that began them
        self._traffic: dict[str, float] = {}  # seconds of HBM that are still to be moved, likewise

    def run(self, steps: tuple[_Step, ...]) -> Timing:
        """Run the steps and return all that has been spent so far."""
        for step in steps:
            self._run(step)
        return self._spent

    def _run(self, step: _Step) -> None:
        spent, began, moved = self._spent, self._spent.seconds, self._spent.hbm
        flops, hbm = 0.0, step.hbm
        for name, times in step.kernels.items():
            kernel = self._kernels.get(name, Kernel())
            flops += times * kernel.flops
            hbm += times * kernel.hbm_bytes / self._chip.hbm_bandwidth
        spent.seconds += step.compute + flops / (MATMUL_SHARE * self._chip.peak_flops)
        flights = [self._begin(transfer) for transfer in step.transfers]
        if step.continues:
            self._flights[step.name], self._traffic[step.name] = flights, hbm
            hbm = 0.0
        else:
            for flight in flights:
                self._wait(flight)
        for called in step.calls:
            self._repeat(called, self._unknown_trips if step.trips is None else step.trips)
        spent.seconds = max(spent.seconds, began + hbm)
        spent.hbm += hbm
        self._move(spent.seconds - began - (spent.hbm - moved))
        if step.ends is not None:
            self._end(step.ends)

    def _repeat(self, steps: tuple[_Step, ...], times: float) -> None:
        """Run the body of a loop: one iteration at a time while links are busy from before, the rest at once."""
        while times >= 1 and any(flight.end > self._spent.seconds for flight in self._last.values()):
            self.run(steps)
            times -= 1
        if times:
            alone = _Clock(self._unknown_trips, self._kernels, self._chip, self._latency)
            self._spent.add(alone.run(steps), times)

    def _begin(self, transfer: _Transfer) -> _Flight:
        """Give a transfer its time on the links, after those that they were promised to before."""
        before = max(
            (self._last[link] for link in transfer.links & self._last.keys()), key=lambda f: f.end, default=None
        )
        begin = self._spent.seconds if before is None else max(self._spent.seconds, before.end)
        takes = max(transfer.seconds, transfer.latency) if self._latency else transfer.seconds
        flight = _Flight(transfer.kind, begin, begin + takes, before)
        self._last.update(dict.fromkeys(transfer.links, flight))
        self._spent.links[transfer.kind] += takes  # type: ignore[assignment]
        return flight

    def _wait(self, flight: _Flight) -> None:
        """Wait for a transfer; the time until it begins is that of the transfers before it."""
        if flight.before is not None and flight.begin > self._spent.seconds:
            self._wait(flight.before)
        left = flight.end - self._spent.seconds
        if left > 0:
            self._spent.exposed[flight.kind] += left  # type: ignore[assignment]
            self._spent.seconds = flight.end

    def _move(self, spare: float) -> None:
        """Move what is under way in HBM, the oldest first, for at most this many seconds."""
        for name, left in self._traffic.items():
            moved = min(left, max(spare, 0.0))
            self._traffic[name] -= moved
            self._spent.hbm += moved
            spare -= moved

    def _end(self, name: str) -> None:
        """Wait for what a step began."""
        began = self._spent.seconds
        for flight in self._flights.pop(name):
            self._wait(flight)
        self._move(self._spent.seconds - began)
        left = self._traffic.pop(name)
        self._spent.seconds += left
        self._spent.hbm += left


def _begun(computation: Computation, instruction: Instruction) -> tuple[str, ...]:
    """Return the computations that begin at an asynchronous instruction, once they have their operands.

    Those of a `call-start` on another core may come with the `call-update` that follows.
    """
    if instruction.opcode == "async-start" or (instruction.opcode == "call-start" and instruction.operands):
        return instruction.called
    if instruction.opcode == "call-update":
        start = computation[instruction.operands[0]]
        return start.called if start.opcode == "call-start" and not start.operands else ()
    return ()


def _pairs(module: Module, computation: Computation) -> Iterator[tuple[str, str]]:
    """Yield the names of the end and the start of everything asynchronous in a computation.

    Both are instructions of their own, or fusions that contain the collective. Fusions between the two contain it too.
    """
    open_fusions: dict[tuple, list[str]] = {}
    for instruction in computation:
        if instruction.opcode.endswith("-done"):
            start = computation[instruction.operands[0]]
            while start.opcode in ("async-update", "call-update") and not _begun(computation, start):
                start = computation[start.operands[0]]
            yield instruction.name, start.name
        elif instruction.opcode == "fusion":
            inner = list(module[instruction.called[0]])
            targets = {target(each) for each in inner}
            same = tuple(
                (each.opcode, each.arrays, each.attribute("channel_id"), each.attribute("replica_groups"))
                for each in inner
                if each.opcode in COLLECTIVES
            )
            if STARTS in targets:
                open_fusions.setdefault(same, []).append(instruction.name)
            elif ENDS in targets and open_fusions.get(same):
                yield instruction.name, open_fusions[same].pop(0)
