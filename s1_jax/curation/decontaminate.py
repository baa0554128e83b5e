"""Decontamination: questions that overlap with a problem of an evaluation set are dropped.

A question is dropped if it and a problem of one of the sets
- share an n-gram of words, in lower case and split at white space, as in s1's code;
- share an n-gram with punctuation split off, where "positive integers." and "positive integers," are the same words;
- are the same word for word, including the signs of formulas; this finds problems shorter than an n-gram;
- are near duplicates (similar.py), which need not share n words in sequence. Problems of less than n words are exempt:
  with one word changed they are a different problem.

s1's code also compares each source with the sources accepted before it, so that the order of sources decides what
stays. This is not done here: duplicates among sources are removed by `collect`. Nor is AIME exempt, which s1 adds
after this step; the option `common` is for what that hides, phrases that many problems of a competition share.
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

HITS = "hits.jsonl"  # file in the stage's folder
NGRAM, SPLIT, SAME, NEAR = "n-gram", "n-gram, punctuation split off", "word for word", "near duplicate"
UNPUNCTUATED = re.compile(r"[^\W_]+")

Words = Callable[[str], list[str]]


class Problem(NamedTuple):
    """One problem of an evaluation set, with its text."""

    set: str
    id: str
    text: str


class Hit(NamedTuple):
    """Pair of a question and a problem that one check found too similar."""

    row: int  # index of the question
    problem: int  # index among all problems
    check: str
    shared: int | None = None  # number of common n-grams
    similarity: float | None = None  # for near duplicates


def decontaminate(config: CurateConfig, source: Source, folder: Path, bar: Progress) -> Made:
    """Drop the questions with a hit; every hit is written with its pair to `folder/hits.jsonl`.

    In the funnel, each set counts the questions that no set before it dropped. Raises UserError if a set cannot be
    read, since a set must not be skipped silently.
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
    say(f"{len(gone):,} of {len(questions):,} questions dropped; all pairs are in {folder / HITS}")
    return Made(rows=np.setdiff1d(np.arange(len(questions)), list(gone)), dropped=dropped)


def evaluation_sets(options: DecontaminateConfig) -> list[list[Problem]]:
    """Load the problems of each task and path. Raises UserError naming what cannot be read."""
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
            raise UserError(f"{path} contains no problems")
        sets.append(rows)
    return sets


def decontaminate_inputs(config: CurateConfig) -> list[Path]:
    """List the evaluation sets that are files. Raises UserError if one does not exist."""
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
    """Find all hits, sorted by question, problem and check; near duplicates only count if no other check hit the pair.

    If several problems of a set are near duplicates of a question, only the nearest one is returned.
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
    """Return one line per set and check with its numbers of pairs, problems and questions; questions may repeat."""
    names = dict.fromkeys(problem.set for problem in problems)
    wide = max(map(len, ["set", *names]))
    lines = [f"{'set':<{wide}} {'check':<29} {'pairs':>7} {'problems':>9} {'questions':>10}"]
    for name in names:
        for check in (NGRAM, SPLIT, SAME, NEAR):
            found = [hit for hit in hits if problems[hit.problem].set == name and hit.check == check]
            rows, hit_problems = {hit.row for hit in found}, {hit.problem for hit in found}
            lines.append(f"{name:<{wide}} {check:<29} {len(found):>7,} {len(hit_problems):>9,} {len(rows):>10,}")
    return lines


def _shared(
    questions: Sequence[str], texts: Sequence[str], split: Words, check: str, options: DecontaminateConfig
) -> Iterator[Hit]:
    """Find pairs that share an n-gram which is not too common among the questions."""
    problems: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for problem, text in enumerate(texts):
        for ngram in _ngrams(text, split, options.words):
            problems[ngram].append(problem)
    rows: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, question in enumerate(questions):
        for ngram in _ngrams(question, split, options.words):
            if ngram in problems:
                rows[ngram].append(row)
    shared: Counter[tuple[int, int]] = Counter()
    for ngram, having in rows.items():
        if options.common is None or len(having) <= options.common:
            shared.update((row, problem) for row in having for problem in problems[ngram])
    for (row, problem), count in shared.items():
        yield Hit(row, problem, check, shared=count)


def _ngrams(text: str, split: Words, size: int) -> Iterable[tuple[str, ...]]:
    words = split(text.lower())
    return {tuple(words[first : first + size]) for first in range(len(words) - size + 1)}


def _same(questions: Sequence[str], texts: Sequence[str]) -> Iterator[Hit]:
    problems: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for problem, text in enumerate(texts):
        problems[tuple(WORD.findall(text.lower()))].append(problem)
    problems.pop((), None)
    for row, question in enumerate(questions):
        for problem in problems.get(tuple(WORD.findall(question.lower())), []):
            yield Hit(row, problem, SAME)


def _near(
    questions: Sequence[str], problems: Sequence[Problem], options: DecontaminateConfig, bar: Progress | None
) -> Iterator[Hit]:
    """Find near duplicates of problems that are at least as long as an n-gram."""
    assert options.near_duplicates is not None
    by_set: dict[str, list[int]] = defaultdict(list)
    for index, problem in enumerate(problems):
        if len(WORD.findall(problem.text)) >= options.words:
            by_set[problem.set].append(index)
    for indices in by_set.values():
        texts = [problems[index].text for index in indices]
        for row, text, similarity in nearest(questions, texts, options.near_duplicates, bar):
            yield Hit(row, indices[text], NEAR, similarity=similarity)
