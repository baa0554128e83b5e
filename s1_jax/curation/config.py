"""Options of `python -m s1_jax.curate`, a section a stage."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

from s1_jax.config import EndpointConfig, Switch, UserError


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """Where questions come from."""

    sources: tuple[str, ...] = ()  # of s1_jax/curation/sources.py, or "synthetic"; of duplicates, the first one's stays
    paths: tuple[str, ...] = ()  # of JSONL or Parquet files or folders: question, solution (source, thinking, attempt)
    limit: int | None = None  # rows of each source; none: all
    near_duplicates: float | None = 0.8  # Jaccard similarity of words from which one of two questions goes; none: keep
    seed: int = 0  # of the order of GPQA's choices, of what is drawn of large sources, and of synthetic problems

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"collect.limit is {self.limit}; it must be positive")
        if self.near_duplicates is not None and not 0 < self.near_duplicates <= 1:
            raise UserError(f"collect.near_duplicates is {self.near_duplicates}; it must be above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class DecontaminateConfig:
    """Evaluation sets that no question may come from."""

    tasks: tuple[str, ...] = ("aime24", "aime25", "math500", "gpqa_diamond")  # of s1_jax/tasks
    paths: tuple[str, ...] = ()  # of JSONL, Parquet or CSV files with a column question or problem, beside them
    words: int = 8  # of an n-gram that both have
    common: int | None = None  # an n-gram that more questions have is a turn of phrase; none: all count, as upstream
    near_duplicates: float | None = 0.5  # similarity of problems that share no such n-gram; none: not looked for

    def __post_init__(self) -> None:
        if self.words < 1 or (self.common is not None and self.common < 1):
            raise UserError(f"words is {self.words}, common {self.common}; each must be at least 1")
        if self.near_duplicates is not None and not 0 < self.near_duplicates <= 1:
            raise UserError(f"near_duplicates is {self.near_duplicates}; it must be above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
    """Who writes the traces, and who tries the questions to tell how hard they are."""

    teacher: EndpointConfig = EndpointConfig()  # without a model rows keep the traces they came with
    solvers: tuple[EndpointConfig, ...] = ()  # in the paper Qwen2.5-7B-Instruct and Qwen2.5-32B-Instruct, at 0.05


@dataclasses.dataclass(frozen=True)
class GradeConfig:
    """Who decides what the rules of the tasks leave open, and names a question's field."""

    judge: EndpointConfig = EndpointConfig()  # without a model rules alone decide, and a row's field is its source
    classify: Switch = True  # ask the judge for fields too


RuleName = Literal["no_trace", "no_solution", "asymptote", "images", "numbered_parts", "bold_numbers"]


@dataclasses.dataclass(frozen=True)
class FilterConfig:
    """Rows that go for their form; what a solver got right is marked, and goes where the method of `select` says so."""

    rules: tuple[RuleName, ...] = ("no_trace", "asymptote", "images", "numbered_parts", "bold_numbers")
    asymptote_sources: tuple[str, ...] = ("aime",)  # whose figures may be Asymptote's code

    def __post_init__(self) -> None:
        if unknown := [rule for rule in self.rules if rule not in get_args(RuleName)]:
            raise UserError(f"filter.rules: there is no rule {unknown[0]!r}; there are {', '.join(get_args(RuleName))}")


@dataclasses.dataclass(frozen=True)
class SelectConfig:
    """How the examples are chosen."""

    method: Literal["s1k", "random", "diverse", "longest", "full"] = "s1k"
    size: int = 1000
    seed_sources: tuple[str, ...] = ("gpqa", "aime")  # rows of these the teacher got right are all taken (s1k)
    seed_long_source: str | None = "math"  # and of this one those with more than `seed_long_tokens`
    seed_long_tokens: int = 5600
    seed_from: Literal["hard", "all"] = "hard"  # all: also what a solver got right, as the paper's text has it
    uniform_until: int = 700  # so many are chosen with domains drawn uniformly, the rest by benchmark weights
    # sources whose domains the rest follows, and what each weighs in all
    benchmarks: tuple[tuple[str, float], ...] = (("aime", 1.0), ("gpqa", 0.5))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"select.size {self.size} is below 1")
        if any(not 0 < weight < math.inf for _, weight in self.benchmarks):
            raise UserError(f"select.benchmarks {self.benchmarks}: a weight is not a number above 0")


@dataclasses.dataclass(frozen=True)
class WriteConfig:
    """The data set."""

    name: str = "dataset"  # of its folder in `run_dir`; another one for each selection that is to stay
    licence: str = "other"  # one of the hub's identifiers; other: the card lists what is known of each source
    compare_with: str | None = None  # a path or hub id of questions: how many of them were chosen is in the card
    push_to: str | None = None  # a hub id, private at first; none: it stays here

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise UserError(f"write.name {self.name!r} is not the name of a folder")


@dataclasses.dataclass(frozen=True)
class CurateConfig:
    """Options of `python -m s1_jax.curate`."""

    run_dir: str = "runs/curate"
    tokenizer: str = "Qwen/Qwen2.5-32B-Instruct"  # trace lengths are counted with it
    collect: CollectConfig = CollectConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    generate: GenerateConfig = GenerateConfig()
    grade: GradeConfig = GradeConfig()
    filter: FilterConfig = FilterConfig()
    select: SelectConfig = SelectConfig()
    write: WriteConfig = WriteConfig()
    until: str | None = None  # stage after which to stop; none: all
    again_from: str | None = None  # stage from which on all is made anew
