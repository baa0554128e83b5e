"""Sources of questions: the 16 public sources of the paper's 59,029 questions, an offline generator, and user files.

The hub ids, fields and filters of public sources are those of s1's code, so that most ids are the same too. There are
exceptions:
- GPQA's choices are formatted as in this project's benchmark; AGIEval's passages are followed by an empty line, unlike
  in s1's code. The solutions of both end with a line "Answer: C".
- NuminaMath lacks the texts that s1's code keeps by a list; the 250 questions of SciEval and 1,000 of xword are sampled
  with another seed; AIME's data set has a new owner.
- AGIEval and LiveCodeBench have loading scripts, which are no longer supported, and are read from files: AGIEval from
  another copy, LiveCodeBench from its own files (2.6 GB, nearly all of it test cases).

This was written from documentation and code of these data sets, not from a run against the hub: a field with another
name there raises an error that names it. The counts are the paper's, after its decontamination.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from s1_jax.data.sources import READERS, DataRow, read_rows
from s1_jax.data.synthetic import distinct_problems
from s1_jax.errors import UserError
from s1_jax.runtime.texts import NOT_UNICODE, is_unicode
from s1_jax.tasks import gpqa_diamond

SYNTHETIC = "synthetic"
SPLIT = "train"  # of a user's folder or hub data set
AGIEVAL = "lighteval/agi_eval_en"
AGIEVAL_REVISION = "3652393f2639e1bd2d6389a4527f9ca160e5e1cb"  # later ones may have Parquet files with other columns
HARDEST = 5  # difficulty level in MATH
CROSSWORD = "Solve the crossword puzzle. You are presented with a clue as input and the number of letters in brackets."
CLUE = "### Clue: "
LAST_YEAR = "2021"  # of AIME; the paper reserves 2022 and 2023 for development
SCIEVAL_ENDINGS = {f"\nOptimal {what}:": f"\nWhat is the optimal {what}?" for what in ("solvent", "ligand", "reactant")}
LOCAL_FIELDS = {  # fields of a user's rows, and the columns that may contain them
    "question": ("question", "problem"),
    "solution": ("solution",),
    "source": ("source", "source_type"),
    "domain": ("domain",),
    "thinking": ("thinking", "thinking_trajectories"),
    "attempt": ("attempt",),
}


class Question(NamedTuple):
    """One question; fields that its source does not have are None, and a missing question is empty."""

    question: str
    solution: str | None
    source: str
    domain: str | None = None
    thinking: str | None = None
    attempt: str | None = None


class Part(NamedTuple):
    """Part of a hub data set: a split, or a JSONL file if the split needs a loading script."""

    name: str
    split: str = "train"
    subset: str | None = None
    file: str | None = None
    revision: str | None = None

    def rows(self) -> Iterator[DataRow]:
        """Yield the rows of this part. Raises UserError if they cannot be loaded: no access, no network, or deleted."""
        if self.file is None:
            return read_rows(self.name, self.split, self.subset)
        from huggingface_hub import hf_hub_download  # slow to import

        try:
            path = hf_hub_download(self.name, self.file, repo_type="dataset", revision=self.revision)
        except (OSError, ValueError) as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{self.file} of hub data set {self.name!r} could not be loaded ({said})") from None
        return read_rows(path, self.split)


Read = Callable[[DataRow, int], tuple[str, str | None]]  # a row and the seed -> question and solution
Others = frozenset[str]  # questions of another data set, folded


class Pool(NamedTuple):
    """Description of a public source of questions."""

    parts: tuple[Part, ...]
    read: Read
    in_paper: int  # number of its questions among the 59,029
    licence: str | None  # according to its card
    keep: Callable[[DataRow, Others], bool] = lambda row, others: True
    others: tuple[Part, str] | None = None  # `keep` gets the questions in this column of this part
    chosen: int | None = None  # number of questions sampled evenly from all groups; None means all
    groups: Callable[[DataRow], tuple[Hashable, ...]] = lambda row: ()  # from the coarsest to the finest


def fold(text: str) -> str:
    """Normalize a text for comparison: without white space, which formulas may or may not have, and in lower case."""
    return "".join(text.split()).casefold()


def read_public(pool: Pool, name: str, seed: int, limit: int | None) -> Iterator[Question]:
    """Read the first `limit` questions of a public source. Raises UserError if it is not as described here."""
    others: Others = frozenset()
    if pool.others is not None:
        part, column = pool.others
        others = frozenset(fold(_string(row, column)) for row in part.rows())
    rows: Iterable[DataRow] = (row for part in pool.parts for row in part.rows() if pool.keep(row, others))
    if pool.chosen is not None:
        rows = _drawn(list(rows), pool.groups, seed)[: pool.chosen]
    for row in islice(rows, limit):
        yield Question(*pool.read(row, seed), source=name)


def read_synthetic(seed: int, limit: int | None) -> Iterator[Question]:
    """Generate `limit` different training problems of the tiny task with their solutions.

    The domain is the number of updates. Raises UserError without a limit.
    """
    if limit is None:
        raise UserError(f"the source {SYNTHETIC} is endless; set collect.limit")
    for problem in distinct_problems(np.random.default_rng([seed, 2]), limit, held_out=False):
        domain = f"{len(problem.updates):2} updates"
        yield Question(problem.question, problem.answer, SYNTHETIC, domain)


def read_local(path: str, limit: int | None) -> Iterator[Question]:
    """Read the first `limit` rows of a JSONL or Parquet file, a folder or a hub id.

    `source` is a column of the row, else the file's name. Raises UserError, naming file and row, if there is no column
    of questions, a value is not a text, a line is not JSON, or an earlier row has the same `id` with another question.
    """
    ids: dict[str, tuple[bytes, str]] = {}
    for row in islice(read_rows(path, SPLIT), limit):
        if not any(name in row.columns for name in LOCAL_FIELDS["question"]):
            found = ", ".join(row.columns) or "none"
            raise UserError(f"{row.where}: no column question or problem; it has {found}")
        texts = {field: _first(row, names) for field, names in LOCAL_FIELDS.items()}
        question, source = texts.pop("question") or "", texts.pop("source") or _name(row)
        if row.columns.get("id") is not None:
            digest = hashlib.sha256(fold(question).encode()).digest()
            other, where = ids.setdefault(row.id, (digest, row.where))
            if other != digest:
                raise UserError(
                    f"{row.where}: another question ({where}) has the same id {row.id!r}; ids must be unique"
                )
        yield Question(question, texts.pop("solution"), source, **texts)


def _name(row: DataRow) -> str:
    name = row.where.rsplit(", ", 1)[0].rsplit("/", 1)[-1]
    return next((name.removesuffix(suffix) for suffix in READERS if name.endswith(suffix)), name)


def _first(row: DataRow, names: Sequence[str]) -> str | None:
    return next((value for name in names if name in row.columns and (value := _text(row, name)) is not None), None)


def _text(row: DataRow, name: str) -> str | None:
    """Return a field as text: a number is formatted, and the first element of a list is used.

    Raises UserError that names row and field.
    """
    if name not in row.columns:
        raise UserError(f"{row.where}: field {name!r} is missing")
    value = row.columns[name]
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{row.where}: field {name!r} is of type {type(value).__name__}; it must be a string")
    if value is not None and not is_unicode(value):
        raise UserError(f"{row.where}: field {name!r} {NOT_UNICODE}")
    return value


def _string(row: DataRow, name: str) -> str:
    return _text(row, name) or ""


def _drawn(rows: Sequence[DataRow], groups: Callable[[DataRow], tuple[Hashable, ...]], seed: int) -> list[DataRow]:
    """Shuffle the rows so that in any prefix all groups have equal counts, as do the subgroups of each group.

    The order depends on the seed and the contents of the rows, not on their original order.
    """

    def digest(row: DataRow) -> bytes:
        return hashlib.sha256(f"{seed}\n{sorted(row.columns.items())}".encode(errors="replace")).digest()

    order = sorted(rows, key=digest)
    depth = len(groups(order[0])) if order else 0
    for end in range(depth, 0, -1):
        seen: Counter[tuple[Hashable, ...]] = Counter()
        ranks = []
        for row in order:
            group = groups(row)[:end]
            ranks.append(seen[group])
            seen[group] += 1
        order = [order[i] for i in sorted(range(len(order)), key=ranks.__getitem__)]
    return order


def _fields(question: str, solution: str | None = None, strip: bool = False) -> Read:
    def read(row: DataRow, seed: int) -> tuple[str, str | None]:
        text = _string(row, question)
        return text.strip() if strip else text, None if solution is None else _text(row, solution)

    return read


def _agieval(row: DataRow, seed: int) -> tuple[str, str | None]:
    """Return passage, question and choices, and as solution the explanation, with the letter if choices are shown."""
    question, solution = _string(row, "question"), _inner(row, "solution")
    solution = solution if isinstance(solution, str) and solution.strip() else None
    if not _shows_choices(row):
        return question, solution or _text(row, "answer")
    choices = "\n".join(map(str, row.columns["options"]))
    passage = _text(row, "passage")
    text = f"{passage.strip()}\n\n{question}" if passage and passage.strip() else question
    return f"{text}\n{choices}", "\n\n".join(filter(None, (solution, f"Answer: {_string(row, 'label')}")))


def _shows_choices(row: DataRow) -> bool:
    return bool(row.columns.get("options")) and "aqua-rat" not in row.where


def _inner(row: DataRow, name: str) -> Any:
    """Return a field of AGIEval's column `other`."""
    other = row.columns.get("other")
    return other.get(name) if isinstance(other, Mapping) else None


def _agieval_keeps(row: DataRow, others: Others) -> bool:
    level = _inner(row, "level")
    return level is None or level == HARDEST


def _crossword(row: DataRow, seed: int) -> tuple[str, str | None]:
    _, mark, clue = _string(row, "input").partition(CLUE)
    if not mark:
        raise UserError(f"{row.where}: field 'input' has no {CLUE!r}")
    return f"{CROSSWORD}\n\n{clue}", _text(row, "output")


def _gpqa(row: DataRow, seed: int) -> tuple[str, str | None]:
    """Return the question with choices in an order by seed and question, as in the benchmark; the letter ends it."""
    problem = gpqa_diamond.problem(row, seed)
    explanation = _string(row, "Explanation").strip()
    return problem.question, "\n\n".join(filter(None, (explanation, f"Answer: {problem.gold}")))


def _scieval(row: DataRow, seed: int) -> tuple[str, str | None]:
    question = _string(row, "question").split("\n\nAnswer:")[0]
    for ending, asked in SCIEVAL_ENDINGS.items():
        question = question.replace(ending, asked)
    return question, _text(row, "answer")


_OLYMPIC_ARENA = ("Math", "Physics", "Chemistry", "Biology", "Geography", "Astronomy", "CS")
_OLYMPIAD_BENCH = ("OE_TO_maths_en_COMP", "OE_TO_physics_en_COMP", "TP_TO_maths_en_COMP", "TP_TO_physics_en_COMP")
_AGIEVAL = ("sat-en", "sat-math", "lsat-ar", "lsat-lr", "lsat-rc", "logiqa-en", "aqua-rat", "math")
_LIVE_CODE_BENCH = ("test.jsonl", "test2.jsonl", "test3.jsonl")  # additions of releases 1 to 3

# The first of duplicates stays, so list sources that the selection takes whole (gpqa, aime, math) first.
PUBLIC: dict[str, Pool] = {
    "gpqa": Pool(
        (Part("Idavidrein/gpqa", subset="gpqa_extended"),),
        _gpqa,
        348,
        "cc-by-4.0",
        keep=lambda row, diamond: fold(_string(row, "Question")) not in diamond,
        others=(Part("Idavidrein/gpqa", subset="gpqa_diamond"), "Question"),
    ),
    "aime": Pool(
        (Part("di-zhang-fdu/AIME_1983_2024"),),
        _fields("Question", "Answer"),
        890,
        "mit",
        keep=lambda row, others: _string(row, "Year") <= LAST_YEAR,
    ),
    "math": Pool((Part("simplescaling/openaimath"),), _fields("problem", "solution"), 11_999, "apache-2.0"),
    "olympic_arena": Pool(
        tuple(Part("GAIR/OlympicArena", split, field) for split in ("test", "val") for field in _OLYMPIC_ARENA),
        _fields("problem", "solution"),
        4250,
        "cc-by-nc-sa-4.0",
        keep=lambda row, others: (_text(row, "language"), _text(row, "modality")) == ("EN", "text-only"),
    ),
    "theoremqa": Pool(
        (Part("TIGER-Lab/TheoremQA", "test"),),
        _fields("Question", "Answer"),
        747,
        "mit",
        keep=lambda row, others: row.columns.get("Picture") is None,
    ),
    "numina": Pool(
        (Part("AI-MO/NuminaMath-CoT"),),
        _fields("problem", "solution"),
        30_660,
        "apache-2.0",
        keep=lambda row, fixed: _text(row, "source") == "aops_forum" or fold(_string(row, "problem")) in fixed,
        others=(Part("simplescaling/numinamath_500"), "problem"),
    ),
    "omni_math": Pool((Part("KbsdJames/Omni-MATH", "test"),), _fields("problem", "solution"), 4238, "apache-2.0"),
    "scieval": Pool(
        (Part("OpenDFM/SciEval", "test"), Part("OpenDFM/SciEval", "validation")),
        _scieval,
        227,
        None,
        keep=lambda row, others: _text(row, "answer") is not None,
        chosen=250,
        groups=lambda row: (_text(row, "task_name"), _text(row, "topic")),
    ),
    "olympiad_bench": Pool(
        tuple(Part("Hothan/OlympiadBench", subset=subset) for subset in _OLYMPIAD_BENCH),
        _fields("question", "solution"),  # without its `context`, as in s1's code; it would change the ids
        896,
        "apache-2.0",
    ),
    "jeebench": Pool((Part("daman1209arora/jeebench", "test"),), _fields("question", "gold"), 515, "mit"),
    "agieval": Pool(
        tuple(
            Part(AGIEVAL, file=f"data/{name}{few}.jsonl", revision=AGIEVAL_REVISION)
            for name in _AGIEVAL
            for few in ("", "-dev")
        ),
        _agieval,
        2385,
        "mit",
        keep=_agieval_keeps,
    ),
    "s1_prob": Pool((Part("simplescaling/s1-prob"),), _fields("question", "solution"), 182, "apache-2.0"),
    "xword": Pool((Part("0xharib/xword1"),), _crossword, 999, "cc-by-4.0", chosen=1000),
    "usaco": Pool((Part("codegenning/usacobench_formatted", "test"),), _fields("question", strip=True), 519, None),
    "s1_teasers": Pool(
        (Part("simplescaling/s1-teasers"),), _fields("Question", "Answer", strip=True), 23, "apache-2.0"
    ),
    "live_code_bench": Pool(
        tuple(Part("livecodebench/code_generation_lite", file=file) for file in _LIVE_CODE_BENCH),
        _fields("question_content", strip=True),
        151,
        "cc",
        keep=lambda row, others: _text(row, "difficulty") == "hard",
    ),
}
