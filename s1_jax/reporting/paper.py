"""The paper's tables that a run is compared with (s1, arXiv 2501.19393; table numbers of its version 2)."""

from __future__ import annotations

import dataclasses
from typing import Literal

# The reference's "auto" maximum is the rest of a context of 32,768; Table 2 calls it "about 30,000 thinking tokens".
NO_MAXIMUM = 30_000


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark of the paper; names of the same task in s1_jax begin with `prefix`."""

    name: str
    prefix: str
    problems: int
    source: str  # data set of the reference's problems


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The setting of a row of the paper: greedy, without a maximum but the context, and nothing else set."""

    forcing: bool = True
    num_ignore: int = 0
    ignore_string: str | None = None
    instruction: str | None = None


@dataclasses.dataclass(frozen=True)
class AccuracyRow:
    """A row of the paper's tables: accuracy in percent and mean thinking tokens by benchmark, None if absent."""

    table: str
    name: str
    accuracy: tuple[float | None, float | None, float | None]  # in the order of BENCHMARKS
    tokens: tuple[int | None, int | None, int | None] = (None, None, None)
    wanted: tuple[Wanted, ...] = ()  # if several, the best run of them


Kind = Literal["forcing", "token", "token, forced", "step", "step, forced", "class", "rejection"]


@dataclasses.dataclass(frozen=True)
class MethodRow:
    """A row of the paper's Table 3, whose benchmark is AIME 2024."""

    name: str
    control: int
    scaling: int
    performance: float
    kind: Kind


BENCHMARKS = (
    Benchmark("AIME 2024", "aime24", 30, "simplescaling/aime24_nofigures"),
    Benchmark("MATH 500", "math", 500, "simplescaling/openaimath"),
    Benchmark("GPQA Diamond", "gpqa", 198, "GPQA's diamond set"),
)

REJECTION_TEMPERATURE = 1.0  # the paper's, section 5.2
WAITS = (2, 4, 6)  # numbers of ends that "Wait" replaces for s1-32B in Figure 4


def _twice(string: str) -> tuple[Wanted]:
    return (Wanted(num_ignore=2, ignore_string=string),)


ACCURACIES = (
    AccuracyRow("1", "s1 without budget forcing", (50.0, 92.6, 56.6), wanted=(Wanted(forcing=False),)),
    AccuracyRow(  # tokens: the text on Figure 1
        "1",
        "s1-32B",
        (56.7, 93.0, 59.6),
        (7320, None, None),
        tuple(Wanted(num_ignore=count, ignore_string="Wait") for count in WAITS),
    ),
    AccuracyRow("4, 13", "no extrapolation", (50.0, 93.0, 57.6), (6109, 3298, 3510), (Wanted(),)),
    AccuracyRow("4", "2x without string", (50.0, 90.2, 55.1), wanted=_twice("")),
    AccuracyRow("4", '2x "Alternatively"', (50.0, 92.2, 59.6), wanted=_twice("Alternatively")),
    AccuracyRow("4", '2x "Hmm"', (50.0, 93.0, 59.6), wanted=_twice("Hmm")),
    AccuracyRow("4", '2x "Wait"', (53.3, 93.0, 59.6), wanted=_twice("Wait")),
    AccuracyRow("13", "short prompt", (30.0, 90.4, 56.6), (8033, 2537, 4177), (Wanted(instruction="short"),)),
    AccuracyRow("13", "long prompt", (36.7, 91.4, 51.0), (9651, 3875, 4827), (Wanted(instruction="long"),)),
)

METHODS = (
    MethodRow("budget forcing", 100, 15, 56.7, "forcing"),
    MethodRow("token-conditional", 40, -24, 40.0, "token"),
    MethodRow("token-conditional, forced", 100, 13, 40.0, "token, forced"),
    MethodRow("step-conditional", 60, 3, 36.7, "step"),
    MethodRow("step-conditional, forced", 100, 6, 36.7, "step, forced"),
    MethodRow("class-conditional", 50, 25, 36.7, "class"),
    MethodRow("rejection sampling", 100, -35, 40.0, "rejection"),
)


def benchmark_of(task: str) -> int | None:
    """Return the index in BENCHMARKS of a task of s1_jax; None if the paper has no such task."""
    return next((i for i, benchmark in enumerate(BENCHMARKS) if task.startswith(benchmark.prefix)), None)
