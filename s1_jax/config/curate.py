"""Options of `python -m s1_jax.curate`, a section a stage."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from s1_jax.config import EndpointConfig
from s1_jax.config.options import Count, Options, Place, Positive, Range, Seed, Whole
from s1_jax.config.types import Switch
from s1_jax.errors import UserError

Similarity = Annotated[float, Range(0, 1, above=True)]


@dataclasses.dataclass(frozen=True)
class CollectConfig(Options, section="collect"):
    """Where questions come from."""

    sources: tuple[str, ...] = ()  # of s1_jax/curation/sources.py, or "synthetic"; of duplicates, the first one's stays
    paths: tuple[
        Place, ...
    ] = ()  # of JSONL or Parquet files or folders: question, solution (source, thinking, attempt)
    limit: Count | None = None  # rows of each source; none: all
    # Jaccard similarity of words from which one of two questions goes; none: keep
    near_duplicates: Similarity | None = 0.8
    seed: Seed = 0  # of the order of GPQA's choices, of what is drawn of large sources, and of synthetic problems


@dataclasses.dataclass(frozen=True)
class DecontaminateConfig(Options, section="decontaminate"):
    """Evaluation sets that no question may come from."""

    tasks: tuple[str, ...] = ("aime24", "aime25", "math500", "gpqa_diamond")  # of s1_jax/tasks
    paths: tuple[Place, ...] = ()  # of JSONL, Parquet or CSV files with a column question or problem, beside them
    words: Count = 8  # of an n-gram that both have
    common: Count | None = None  # an n-gram that more questions have is a turn of phrase; none: all count, as upstream
    near_duplicates: Similarity | None = 0.5  # similarity of problems that share no such n-gram; none: not looked for


@dataclasses.dataclass(frozen=True)
class GenerateConfig(Options, section="generate"):
    """Who writes the traces, and who tries the questions to tell how hard they are."""

    teacher: EndpointConfig = EndpointConfig()  # without a model rows keep the traces they came with
    solvers: tuple[EndpointConfig, ...] = ()  # in the paper Qwen2.5-7B-Instruct and Qwen2.5-32B-Instruct, at 0.05


@dataclasses.dataclass(frozen=True)
class GradeConfig(Options, section="grade"):
    """Who decides what the rules of the tasks leave open, and names a question's field."""

    judge: EndpointConfig = EndpointConfig()  # without a model rules alone decide, and a row's field is its source
    classify: Switch = True  # ask the judge for fields too


RuleName = Literal["no_trace", "no_solution", "asymptote", "images", "numbered_parts", "bold_numbers"]


@dataclasses.dataclass(frozen=True)
class FilterConfig(Options, section="filter"):
    """Rows that go for their form; what a solver got right is marked, and goes where the method of `select` says so."""

    rules: tuple[RuleName, ...] = ("no_trace", "asymptote", "images", "numbered_parts", "bold_numbers")
    asymptote_sources: tuple[str, ...] = ("aime",)  # whose figures may be Asymptote's code


@dataclasses.dataclass(frozen=True)
class SelectConfig(Options, section="select"):
    """How the examples are chosen."""

    method: Literal["s1k", "random", "diverse", "longest", "full"] = "s1k"
    size: Count = 1000
    seed_sources: tuple[str, ...] = ("gpqa", "aime")  # rows of these the teacher got right are all taken (s1k)
    seed_long_source: str | None = "math"  # and of this one those with more than `seed_long_tokens`
    seed_long_tokens: Whole = 5600
    seed_from: Literal["hard", "all"] = "hard"  # all: also what a solver got right, as the paper's text has it
    uniform_until: Whole = 700  # so many are chosen with domains drawn uniformly, the rest by benchmark weights
    # sources whose domains the rest follows, and what each weighs in all
    benchmarks: tuple[tuple[str, Positive], ...] = (("aime", 1.0), ("gpqa", 0.5))
    seed: Seed = 0


@dataclasses.dataclass(frozen=True)
class WriteConfig(Options, section="write"):
    """The data set."""

    name: str = "dataset"  # of its folder in `run_dir`; another one for each selection that is to stay
    licence: str = "other"  # one of the hub's identifiers; other: the card lists what is known of each source
    compare_with: Place | None = None  # a path or hub id of questions: how many of them were chosen is in the card
    push_to: Place | None = None  # a hub id, private at first; none: it stays here

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.strip() or "\0" in self.name or "/" in self.name or self.name.startswith("."):
            raise UserError(f"write.name {self.name!r} is not the name of a folder")


@dataclasses.dataclass(frozen=True)
class CurateConfig(Options):
    """Options of `python -m s1_jax.curate`."""

    run_dir: Place = "runs/curate"
    tokenizer: Place = "Qwen/Qwen2.5-32B-Instruct"  # trace lengths are counted with it
    collect: CollectConfig = CollectConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    generate: GenerateConfig = GenerateConfig()
    grade: GradeConfig = GradeConfig()
    filter: FilterConfig = FilterConfig()
    select: SelectConfig = SelectConfig()
    write: WriteConfig = WriteConfig()
    until: str | None = None  # stage after which to stop; none: all
    again_from: str | None = None  # stage from which on all is made anew
