"""Questions that an evaluation set holds too go: by what they share, word for word, and by what they say.

A question goes when it and a problem of one of the sets
- share an n-gram of words, in lower case, split at white space, as in the reference;
- share one with the punctuation split off: "positive integers." and "positive integers," are then the same words;
- are the same word for word, signs of formulas included, however short: under n words there is no n-gram;
- are near duplicates (similar.py), which need not share n words in a row. This is not asked of problems under n words:
  with one word changed they are another problem.

The reference also holds every source against those it accepted before, so that the order of sources decides what stays.
That is not copied: sources do not leak into each other, and duplicates among them are `collect`'s. Nor is its exemption
of AIME, which it adds after this step; `common` is there for what that hides, the turns of phrase of a competition.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import Progress

from s1_jax.config import TaskConfig
from s1_jax.config.curate import CurateConfig, DecontaminateConfig
from s1_jax.curation.similar import WORD, nearest
from s1_jax.curation.stages import Made, Source
from s1_jax.data.sources import read_rows
from s1_jax.errors import UserError
from s1_jax.runtime.files import whole_file
from s1_jax.runtime.storage import as_path
from s1_jax.runtime.terminal import say
from s1_jax.tasks import load_task
from s1_jax.tasks.task import QUESTION_FIELDS, id_of, value_of

HITS = "hits.jsonl"  # in the stage's folder
NGRAM, SPLIT, SAME, NEAR = "n-gram", "n-gram, punctuation split off", "word for word", "near duplicate"
UNPUNCTUATED = re.compile(r"[^\W_]+")

Words = Callable[[str], list[str]]


class Problem(NamedTuple):
    """One problem of an evaluation set."""

    set: str
    id: str
    text: str


class Hit(NamedTuple):
    """A question and a problem that one check finds too much alike."""

    row: int  # of the question
    problem: int  # of all problems
    check: str
    shared: int | None = None  # n-grams that both have
    similarity: float | None = None  # of near duplicates


def decontaminate(config: CurateConfig, source: Source, folder: Path, bar: Progress) -> Made:
    """Drops the questions that hit; every hit with its pair is a line of `folder/hits.jsonl`.

    A set's line in the funnel is of the questions that no set before it dropped. Raises UserError on a set that cannot
    be read: one silently left out would be worse than none.
    """
    options = config.decontaminate
    sets = evaluation_sets(options)
    problems = [problem for one in sets for problem in one]
    rows = [row for batch in source.batches(["id", "question"]) for row in batch.to_pylist()]
    questions = [row["question"] or "" for row in rows]
    hits = find_hits(questions, problems, options, bar)
    with whole_file(folder / HITS) as beside, beside.open("w", encoding="utf-8") as file:
        for hit in hits:
            problem = problems[hit.problem]
            line = {"id": rows[hit.row]["id"], "set": problem.set, "problem_id": problem.id, "check": hit.check}
            line |= {"shared": hit.shared, "similarity": hit.similarity}
            line |= {"question": questions[hit.row], "problem": problem.text}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    gone: set[int] = set()
    dropped = []
    for name in dict.fromkeys(problem.set for problem in problems):
        here = {hit.row for hit in hits if problems[hit.problem].set == name} - gone
        dropped.append((name, len(here)))
        gone |= here
    say("\n".join(report(hits, problems)))
    say(f"{len(gone):,} of {len(questions):,} questions dropped; every hit with its pair: {folder / HITS}")
    return Made(rows=np.setdiff1d(np.arange(len(questions)), list(gone)), dropped=dropped)


def evaluation_sets(options: DecontaminateConfig) -> list[list[Problem]]:
    """The problems of every task and path, under their names. Raises UserError naming what cannot be read."""
    sets = []
    for name in options.tasks:
        task = load_task(TaskConfig(name))
        sets.append([Problem(name, str(problem.id), problem.question) for problem in task.problems])
    for path in _files(options):
        rows = [
            Problem(path.name, str(id_of(row)), value_of(row, QUESTION_FIELDS, str))
            for row in read_rows(str(path), "train")
        ]
        if not rows:
            raise UserError(f"{path} holds no problems")
        sets.append(rows)
    return sets


def decontaminate_inputs(config: CurateConfig) -> list[Path]:
    """The evaluation sets that are files. Raises UserError where one is no file."""
    return _files(config.decontaminate)


def _files(options: DecontaminateConfig) -> list[Path]:
    paths = [as_path(path) for path in options.paths]
    for path in paths:
        if not path.is_file():
            raise UserError(f"decontaminate.paths: no such file: {path}")
    return paths


def find_hits(
    questions: Sequence[str], problems: Sequence[Problem], options: DecontaminateConfig, bar: Progress | None = None
) -> list[Hit]:
    """Every hit, by question, problem and check; near duplicates are only looked for where nothing else hit the pair.

    Of the problems of a set that are near duplicates of a question the nearest is named.
    """
    texts = [problem.text for problem in problems]
    hits = [
        *_shared(questions, texts, str.split, NGRAM, options),
        *_shared(questions, texts, UNPUNCTUATED.findall, SPLIT, options),
        *_same(questions, texts),
    ]
    if options.near_duplicates is not None:
        known = {(hit.row, hit.problem) for hit in hits}
        hits += [hit for hit in _near(questions, problems, options, bar) if (hit.row, hit.problem) not in known]
    return sorted(hits, key=lambda hit: (hit.row, hit.problem))


def report(hits: Sequence[Hit], problems: Sequence[Problem]) -> list[str]:
    """A line a set and check: pairs, problems and questions that it finds; a question may be on several."""
    names = dict.fromkeys(problem.set for problem in problems)
    wide = max(map(len, ["set", *names]))
    lines = [f"{'set':<{wide}} {'check':<29} {'pairs':>7} {'problems':>9} {'questions':>10}"]
    for name in names:
        for check in (NGRAM, SPLIT, SAME, NEAR):
            found = [hit for hit in hits if problems[hit.problem].set == name and hit.check == check]
            rows, places = {hit.row for hit in found}, {hit.problem for hit in found}
            lines.append(f"{name:<{wide}} {check:<29} {len(found):>7,} {len(places):>9,} {len(rows):>10,}")
    return lines


def _shared(
    questions: Sequence[str], texts: Sequence[str], split: Words, check: str, options: DecontaminateConfig
) -> Iterator[Hit]:
    """Pairs that share an n-gram not too common among the questions."""
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        for ngram in _ngrams(text, split, options.words):
            places[ngram].append(place)
    rows: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, question in enumerate(questions):
        for ngram in _ngrams(question, split, options.words):
            if ngram in places:
                rows[ngram].append(row)
    shared: Counter[tuple[int, int]] = Counter()
    for ngram, having in rows.items():
        if options.common is None or len(having) <= options.common:
            shared.update((row, place) for row in having for place in places[ngram])
    for (row, place), count in shared.items():
        yield Hit(row, place, check, shared=count)


def _ngrams(text: str, split: Words, size: int) -> Iterable[tuple[str, ...]]:
    words = split(text.lower())
    return {tuple(words[first : first + size]) for first in range(len(words) - size + 1)}


def _same(questions: Sequence[str], texts: Sequence[str]) -> Iterator[Hit]:
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        places[tuple(WORD.findall(text.lower()))].append(place)
    places.pop((), None)
    for row, question in enumerate(questions):
        for place in places.get(tuple(WORD.findall(question.lower())), []):
            yield Hit(row, place, SAME)


def _near(
    questions: Sequence[str], problems: Sequence[Problem], options: DecontaminateConfig, bar: Progress | None
) -> Iterator[Hit]:
    """Near duplicates of problems that are no shorter than an n-gram."""
    assert options.near_duplicates is not None
    places: dict[str, list[int]] = defaultdict(list)
    for place, problem in enumerate(problems):
        if len(WORD.findall(problem.text)) >= options.words:
            places[problem.set].append(place)
    for those in places.values():
        texts = [problems[place].text for place in those]
        for row, place, similarity in nearest(questions, texts, options.near_duplicates, bar):
            yield Hit(row, those[place], NEAR, similarity=similarity)
