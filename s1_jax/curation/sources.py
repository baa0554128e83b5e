"""Where questions come from: the 16 public sources of the paper's 59,029 (its table of the composition), a generator
that needs no network, and files of the user's own.

Of a public source, hub id, fields and filter are those of the reference, so that most ids are the same too. Not so:
- GPQA's choices are laid out as this project's benchmark has them; AGIEval's passages have an empty line behind them,
  where the reference has nothing. The solutions of both end with a line "Answer: C".
- NuminaMath lacks what the reference keeps by a list of texts; which 250 of SciEval and 1,000 of xword are taken is
  drawn anew; AIME's data set has another owner now.
- AGIEval and LiveCodeBench need a script to load. They are read from files: AGIEval's of another copy, LiveCodeBench's
  its own (2.6 GB, nearly all of it test cases).

What is known here is known from pages and code about these data sets, not from a run against the hub: a field that has
another name there is an error that names it. Counts are the paper's, after its decontamination.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from s1_jax.data.sources import READERS, Row, read_rows
from s1_jax.data.synthetic import distinct_problems
from s1_jax.errors import UserError
from s1_jax.runtime.texts import is_unicode
from s1_jax.tasks import gpqa_diamond

SYNTHETIC = "synthetic"
SPLIT = "train"  # of a user's folder
AGIEVAL = "lighteval/agi_eval_en"
AGIEVAL_REVISION = "3652393f2639e1bd2d6389a4527f9ca160e5e1cb"  # later ones may hold Parquet files of other columns
HARDEST = 5  # level of MATH
CROSSWORD = "Solve the crossword puzzle. You are presented with a clue as input and the number of letters in brackets."
CLUE = "### Clue: "
LAST_YEAR = "2021"  # of AIME; the paper keeps 2022 and 2023 for development
SCIEVAL_ENDINGS = {f"\nOptimal {what}:": f"\nWhat is the optimal {what}?" for what in ("solvent", "ligand", "reactant")}
LOCAL_FIELDS = {  # of a user's rows, and the columns that may hold them
    "question": ("question", "problem"),
    "solution": ("solution",),
    "source": ("source", "source_type"),
    "domain": ("domain",),
    "thinking": ("thinking", "thinking_trajectories"),
    "attempt": ("attempt",),
}


class Question(NamedTuple):
    """One question; what its source does not have is None, and where it has no question that is empty."""

    question: str
    solution: str | None
    source: str
    domain: str | None = None
    thinking: str | None = None
    attempt: str | None = None


class Part(NamedTuple):
    """Rows of a hub data set: a split, or a JSONL file where the split is there for a script alone."""

    name: str
    split: str = "train"
    subset: str | None = None
    file: str | None = None
    revision: str | None = None

    def rows(self) -> Iterator[Row]:
        """The rows. Raises UserError where they cannot be had: no access, no network, gone."""
        if self.file is None:
            return read_rows(self.name, self.split, self.subset)
        from huggingface_hub import hf_hub_download  # slow to import

        try:
            path = hf_hub_download(self.name, self.file, repo_type="dataset", revision=self.revision)
        except (OSError, ValueError) as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{self.file} of hub data set {self.name!r} could not be loaded ({said})") from None
        return read_rows(path, self.split)


Read = Callable[[Row, int], tuple[str, str | None]]  # a row and the seed -> question and solution
Others = frozenset[str]  # folded questions of another data set


class Pool(NamedTuple):
    """A public source."""

    parts: tuple[Part, ...]
    read: Read
    in_paper: int  # of its questions among the 59,029
    licence: str | None  # as its card has it
    keep: Callable[[Row, Others], bool] = lambda row, others: True
    others: tuple[Part, str] | None = None  # whose questions, in this column, `keep` is told
    chosen: int | None = None  # so many are drawn, from every group alike; none: all
    groups: Callable[[Row], tuple[Hashable, ...]] = lambda row: ()  # from the widest to the narrowest


def fold(text: str) -> str:
    """What two texts have in common that differ in white space and case alone: a formula may be set with or without."""
    return "".join(text.split()).casefold()


def read_public(pool: Pool, name: str, seed: int, limit: int | None) -> Iterator[Question]:
    """The first `limit` questions of a public source. Raises UserError where it cannot be read as it is known here."""
    others: Others = frozenset()
    if pool.others is not None:
        part, column = pool.others
        others = frozenset(fold(_string(row, column)) for row in part.rows())
    rows: Iterable[Row] = (row for part in pool.parts for row in part.rows() if pool.keep(row, others))
    if pool.chosen is not None:
        rows = _drawn(list(rows), pool.groups, seed)[: pool.chosen]
    for row in islice(rows, limit):
        yield Question(*pool.read(row, seed), source=name)


def read_synthetic(seed: int, limit: int | None) -> Iterator[Question]:
    """`limit` different training problems of the tiny task with their right results; domains are numbers of updates.

    Raises UserError without limit.
    """
    if limit is None:
        raise UserError(f"the source {SYNTHETIC} has no end: say how many with collect.limit")
    for problem in distinct_problems(np.random.default_rng([seed, 2]), limit, held_out=False):
        domain = f"{len(problem.updates):2} updates"
        yield Question(problem.question, problem.answer, SYNTHETIC, domain)


def read_local(path: str, limit: int | None) -> Iterator[Question]:
    """The first `limit` rows of a JSONL or Parquet file or folder (or a hub id); `source` is the row's own, else the
    file's name.

    Raises UserError naming file and row: no column of questions, a value that is no text, a line that is no JSON, an
    `id` of its own that an earlier row has with another question.
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
                raise UserError(f"{row.where}: the id {row.id!r} is that of another question ({where})")
        yield Question(question, texts.pop("solution"), source, **texts)


def _name(row: Row) -> str:
    name = row.where.rsplit(", ", 1)[0].rsplit("/", 1)[-1]
    return next((name.removesuffix(suffix) for suffix in READERS if name.endswith(suffix)), name)


def _first(row: Row, names: Sequence[str]) -> str | None:
    return next((value for name in names if name in row.columns and (value := _text(row, name)) is not None), None)


def _text(row: Row, name: str) -> str | None:
    """A field as text: numbers are written out, of a list the first is taken. Raises UserError naming row and field."""
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
        raise UserError(f"{row.where}: field {name!r} holds half of a surrogate pair; it is not valid Unicode")
    return value


def _string(row: Row, name: str) -> str:
    return _text(row, name) or ""


def _drawn(rows: Sequence[Row], groups: Callable[[Row], tuple[Hashable, ...]], seed: int) -> list[Row]:
    """All rows, shuffled, so that of any first few every group has as many, and in it every group within it.

    The order depends on the seed and each row's text, not on the order the rows came in.
    """

    def place(row: Row) -> bytes:
        return hashlib.sha256(f"{seed}\n{sorted(row.columns.items())}".encode(errors="replace")).digest()

    order = sorted(rows, key=place)
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
    def read(row: Row, seed: int) -> tuple[str, str | None]:
        text = _string(row, question)
        return text.strip() if strip else text, None if solution is None else _text(row, solution)

    return read


def _agieval(row: Row, seed: int) -> tuple[str, str | None]:
    """Passage, question and choices; the explanation, and the letter where the choices are shown."""
    question, solution = _string(row, "question"), _inner(row, "solution")
    solution = solution if isinstance(solution, str) and solution.strip() else None
    if not _shows_choices(row):
        return question, solution or _text(row, "answer")
    choices = "\n".join(map(str, row.columns["options"]))
    passage = _text(row, "passage")
    text = f"{passage.strip()}\n\n{question}" if passage and passage.strip() else question
    return f"{text}\n{choices}", "\n\n".join(filter(None, (solution, f"Answer: {_string(row, 'label')}")))


def _shows_choices(row: Row) -> bool:
    return bool(row.columns.get("options")) and "aqua-rat" not in row.where


def _inner(row: Row, name: str) -> Any:
    """A field of AGIEval's `other`."""
    other = row.columns.get("other")
    return other.get(name) if isinstance(other, Mapping) else None


def _agieval_keeps(row: Row, others: Others) -> bool:
    level = _inner(row, "level")
    return level is None or level == HARDEST


def _crossword(row: Row, seed: int) -> tuple[str, str | None]:
    _, mark, clue = _string(row, "input").partition(CLUE)
    if not mark:
        raise UserError(f"{row.where}: field 'input' has no {CLUE!r}")
    return f"{CROSSWORD}\n\n{clue}", _text(row, "output")


def _gpqa(row: Row, seed: int) -> tuple[str, str | None]:
    """With its choices as the benchmark shows them, in an order of seed and question; the right letter at the end."""
    problem = gpqa_diamond.problem(row, seed)
    explanation = _string(row, "Explanation").strip()
    return problem.question, "\n\n".join(filter(None, (explanation, f"Answer: {problem.gold}")))


def _scieval(row: Row, seed: int) -> tuple[str, str | None]:
    question = _string(row, "question").split("\n\nAnswer:")[0]
    for ending, asked in SCIEVAL_ENDINGS.items():
        question = question.replace(ending, asked)
    return question, _text(row, "answer")


_OLYMPIC_ARENA = ("Math", "Physics", "Chemistry", "Biology", "Geography", "Astronomy", "CS")
_OLYMPIAD_BENCH = ("OE_TO_maths_en_COMP", "OE_TO_physics_en_COMP", "TP_TO_maths_en_COMP", "TP_TO_physics_en_COMP")
_AGIEVAL = ("sat-en", "sat-math", "lsat-ar", "lsat-lr", "lsat-rc", "logiqa-en", "aqua-rat", "math")
_LIVE_CODE_BENCH = ("test.jsonl", "test2.jsonl", "test3.jsonl")  # what is new in releases 1 to 3

# Of duplicates the first stays, so what the selection takes whole (gpqa, aime, math) is best named first.
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
        _fields("question", "solution"),  # without its `context`, as in the reference: with it ids would be others
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
