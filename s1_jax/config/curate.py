"""Options of `python -m s1_jax.curate`, with one section for each stage."""

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
    """Where questions come from; of two duplicates, the one of the earlier source stays."""

    sources: tuple[str, ...] = ()
    """Names of public sources (s1_jax/curation/sources.py), or synthetic for problems that are made."""
    paths: tuple[Place, ...] = ()
    """JSONL or Parquet files, or folders of them, with columns question and solution, and maybe source, thinking and
    attempt."""
    limit: Count | None = None
    """Maximum number of rows of each source; None is all of them."""
    near_duplicates: Similarity | None = 0.8
    """Drop a question whose words have at least this Jaccard similarity with an earlier one's; None keeps them."""
    seed: Seed = 0
    """Seed of the order of GPQA's choices, of the sample of large sources, and of synthetic problems."""


@dataclasses.dataclass(frozen=True)
class DecontaminateConfig(Options, section="decontaminate"):
    """Evaluation sets; questions that are also in one of them are dropped."""

    tasks: tuple[str, ...] = ("aime24", "aime25", "math500", "gpqa_diamond")
    """Tasks whose problems no question may share."""
    paths: tuple[Place, ...] = ()
    """JSONL, Parquet or CSV files of further problems, with a column question or problem."""
    words: Count = 8
    """Number of words in a row that a question and a problem must share for the question to be dropped."""
    common: Count | None = None
    """Ignore word sequences that occur in more than this many questions; None counts all of them, as the paper's code
    does."""
    near_duplicates: Similarity | None = 0.5
    """Drop a question that shares no such words but has at least this Jaccard similarity with a problem; None does not
    look for them."""


@dataclasses.dataclass(frozen=True)
class GenerateStageConfig(Options, section="generate"):
    """Who writes the traces, and who tries the questions to tell how hard they are."""

    teacher: EndpointConfig = EndpointConfig()
    """The model that writes the traces; without a model, rows keep the traces they came with."""
    solvers: tuple[EndpointConfig, ...] = ()
    """Models that try each question; one that any of them gets right is easy."""


@dataclasses.dataclass(frozen=True)
class GradeStageConfig(Options, section="grade"):
    """Who grades attempts that the rules of the tasks leave open, and names a question's field."""

    judge: EndpointConfig = EndpointConfig()
    """The model that grades and classifies; without one the rules alone decide, and a question's field is its
    source."""
    classify: Switch = True
    """Ask the judge for the field of each question too."""


RuleName = Literal["no_trace", "no_solution", "asymptote", "images", "numbered_parts", "bold_numbers"]


@dataclasses.dataclass(frozen=True)
class FilterConfig(Options, section="filter"):
    """Rows that are dropped for their form."""

    rules: tuple[RuleName, ...] = ("no_trace", "asymptote", "images", "numbered_parts", "bold_numbers")
    """Rules that drop a row, in the order in which they are counted."""
    asymptote_sources: tuple[str, ...] = ("aime",)
    """Sources whose questions may hold figures as Asymptote code, which the rule asymptote drops elsewhere."""


@dataclasses.dataclass(frozen=True)
class SelectConfig(Options, section="select"):
    """How the examples are chosen from the rows that are left."""

    method: Literal["s1k", "random", "diverse", "longest", "full"] = "s1k"
    """Way of choosing: as s1K, at random, evenly over fields (diverse), the longest traces, or all rows (full)."""
    size: Count = 1000
    """Number of examples to choose; full takes all."""
    seed_sources: tuple[str, ...] = ("gpqa", "aime")
    """Sources of which every row that the teacher got right is taken first (s1k)."""
    seed_long_source: str | None = "math"
    """One more such source, of which only rows with longer traces than seed_long_tokens are taken; None is no
    source."""
    seed_long_tokens: Whole = 5600
    """Number of trace tokens above which a row of seed_long_source is taken."""
    seed_from: Literal["hard", "all"] = "hard"
    """Rows that these first picks come from: hard ones, as in the paper's code, or all, as in its text."""
    uniform_until: Whole = 700
    """Number of examples chosen with fields sampled uniformly; the rest follow the fields of the benchmarks (s1k)."""
    benchmarks: tuple[tuple[str, Positive], ...] = (("aime", 1.0), ("gpqa", 0.5))
    """Sources whose fields the rest follows, each with its weight in all."""
    seed: Seed = 0
    """Seed of all random choices of this stage."""


@dataclasses.dataclass(frozen=True)
class WriteConfig(Options, section="write"):
    """The data set that is written."""

    name: str = "dataset"
    """Name of its folder in run_dir; give another one for each selection that is to stay."""
    licence: str = "other"
    """License named in its card, as one of the hub's identifiers; other lists what is known of each source."""
    compare_with: Place | None = None
    """Path or hub id of questions; the card says how many of them were chosen. None leaves that out."""
    push_to: Place | None = None
    """Hub id to upload the data set to, as private; None keeps it here."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.strip() or "\0" in self.name or "/" in self.name or self.name.startswith("."):
            raise UserError(f"write.name {self.name!r} is not the name of a folder")


@dataclasses.dataclass(frozen=True)
class CurateConfig(Options):
    """Options of `python -m s1_jax.curate`."""

    run_dir: Place = "runs/curate"
    """Folder of the run, with a table for each stage. The same command resumes it."""
    tokenizer: Place = "Qwen/Qwen2.5-32B-Instruct"
    """Folder or hub id of the tokenizer that trace lengths are counted with."""
    collect: CollectConfig = CollectConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    generate: GenerateStageConfig = GenerateStageConfig()
    grade: GradeStageConfig = GradeStageConfig()
    filter: FilterConfig = FilterConfig()
    select: SelectConfig = SelectConfig()
    write: WriteConfig = WriteConfig()
    until: str | None = None
    """Name of the last stage to run; None is all of them."""
    again_from: str | None = None
    """Name of the first stage to make anew, with all stages after it; None reuses every stage whose inputs are the
    same."""
