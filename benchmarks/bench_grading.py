"""Grading against labelled answers, hostile ones, and the clock.

    python benchmarks/bench_grading.py DATA                  # a folder with grader_cases/ and math500/

Agreement with labelled sets: the 16 pairs of Hendrycks' MATH (of which two call another order of the same solutions
wrong, which is for math-verify to say: listed, not counted), 1,200 solutions of GSM8K's problems by models, whose
answers stand after the last "A:", and forms of answers that graders are known to get wrong, with a mathematician's
verdict. Then MATH500's answers against themselves, as they are and written another way, and against the next problem's.
The longest time of any answer includes answers that are made to hang, which are ended at 5 seconds of processor time;
the worker's start is told apart. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from _machine import others_seconds

from s1_jax.runtime.json_input import read_jsonl
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.tables import align
from s1_jax.tasks import Verdict
from s1_jax.tasks.answers import last_boxed
from s1_jax.tasks.equivalence import grade_math

AGREEMENT, SECONDS, GRADINGS_A_MINUTE = 0.99, 6.0, 100_000  # the bars
PLAIN_PAIRS = 20_000
ORDER_ONLY = {("4, 10, -2", "10, 4, -2"), ("4, .1, 2", "0.1, 4, 2")}
HOSTILE = (
    "9^{9^{9^{9}}}",
    "9^{99999999}",
    "99999999!",
    "9!!!!!!",
    "\\binom{10^9}{5 \\cdot 10^8}",
    "{" * 900 + "1" + "}" * 900,
    "\\frac{" * 300,
    "(" * 900 + "1" + ")" * 900,
    "\\sum_{k=1}^{10^{12}} \\sin(k)",
    "\\int_0^1 \\sin(x^{x^x}) e^{-x^3} \\, dx",
    "(x+y+z)^{5000}",
    "+".join(f"x^{{{i}}}\\sqrt{{{i}+x}}" for i in range(90)),
    "$" * 1900,
    "$1$ and " * 200,
    "1" + " " * 1800 + "x",
    "1+" * 2**19 + "1",
    "7" * 2**20,
    "Answer " * 2**17,
)
SAME = (  # another way to write an answer
    ("spaces", lambda text: text.replace(" ", "") if "\\" not in text else f" {text} "),
    ("dollars", lambda text: f"${text}$"),
    ("fractions", lambda text: text.replace("\\frac", "\\dfrac")),
    ("brackets", lambda text: text.replace("(", "\\left(").replace(")", "\\right)") if "\\left" not in text else text),
)


class Case(NamedTuple):
    """A gold answer and another one, with the label of the pair."""

    source: str
    gold: str
    answer: str
    label: bool

    @property
    def order_only(self) -> bool:
        """Whether the label calls the same solutions in another order wrong."""
        return (self.gold, self.answer) in ORDER_ONLY


class Grade(NamedTuple):
    """What was said of a pair."""

    case: Case
    verdict: Verdict
    seconds: float

    @property
    def differs(self) -> bool:
        """Whether the verdict differs from the label."""
        return self.verdict.correct != self.case.label


def main() -> None:
    """Grades all of it and prints the tables, the JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with grader_cases/ and math500/")
    options = parser.parse_args()
    others = others_seconds()
    start = time.perf_counter()
    assert grade_math("0.5", "\\frac{1}{2}").correct  # starts the worker
    figures: dict[str, Any] = {"worker_start_seconds": time.perf_counter() - start}

    folder = options.data / "grader_cases"
    labelled = [*hendrycks(folder), *gsm8k(folder), *outside(folder)]
    written = list(math500(options.data / "math500"))
    hostile = [Case("hostile", gold, answer, False) for gold in ("\\frac{x}{7}", "2") for answer in HOSTILE]
    grades = graded([*labelled, *written, *hostile])

    rows, misses = [], []
    for source in dict.fromkeys(grade.case.source for grade in grades):
        mine = [grade for grade in grades if grade.case.source == source]
        differing = [grade for grade in mine if grade.differs]
        agreement = 1 - sum(not grade.case.order_only for grade in differing) / len(mine)
        longest = max(grade.seconds for grade in mine)
        by_math = [grade.seconds for grade in mine if grade.verdict.by == "math"]
        mean = f"{1000 * statistics.fmean(by_math):.0f} ms" if by_math else ""
        counts = f"{len(mine):,}", f"{len(by_math):,}", str(len(differing))
        rows.append((source, *counts, f"{agreement:.2%}", mean, f"{longest:.3f} s"))
        figures[source] = {"pairs": len(mine), "agreement": agreement, "longest_seconds": longest}
        misses += [f"agreement on {source}"] * (agreement < AGREEMENT) + [f"time on {source}"] * (longest > SECONDS)
    print(align([("set", "pairs", "by math", "disagree", "agreement", "mean by math", "longest"), *rows]), end="\n\n")
    for case, verdict, _ in filter(lambda grade: grade.differs, grades):
        note = " (another order)" if case.order_only else ""
        print(f"{case.source}: gold {case.gold!r}, answer {case.answer[:80]!r}: label {case.label}, {verdict}{note}")

    figures["plain_gradings_a_minute"] = speed = plain_speed()
    misses += ["plain numbers a minute"] * (speed < GRADINGS_A_MINUTE)
    print(f"\nplain numbers: {speed:,.0f} gradings a minute; worker's start {figures['worker_start_seconds']:.2f} s")
    print(f"others' CPU meanwhile: {others_seconds() - others:.1f} s; bars missed: {', '.join(misses) or 'none'}")
    print(json.dumps(figures | {"missed": misses}))
    sys.exit(bool(misses))


def graded(cases: list[Case]) -> list[Grade]:
    """Every case with its verdict and the seconds it took."""
    grades = []
    with progress_bar() as bar:
        task = bar.add_task("grading", total=len(cases), note="")
        for case in cases:
            start = time.perf_counter()
            verdict = grade_math(case.answer, case.gold)
            grades.append(Grade(case, verdict, time.perf_counter() - start))
            bar.advance(task)
    return grades


def hendrycks(folder: Path) -> Iterator[Case]:
    """Read the pairs of MATH's own tests."""
    for _, row in read_jsonl(folder / "hendrycks_is_equiv_cases.jsonl"):
        yield Case("MATH's pairs", row["gold"], row["pred"], row["equal"])


def gsm8k(folder: Path) -> Iterator[Case]:
    """Read the solutions that four models gave to each problem."""
    for _, row in read_jsonl(folder / "gsm8k_labelled_generations.jsonl"):
        gold = row["ground_truth"].rpartition("A:")[2].strip()
        for value in row.values():
            if isinstance(value, dict):
                answer = value["solution"].rpartition("A:")[2].strip()
                yield Case("GSM8K's solutions", gold, answer, value["is_correct"])


def outside(folder: Path) -> Iterator[Case]:
    """Forms that public bug reports name, of formulas alone."""
    for _, row in read_jsonl(folder / "outside_cases.jsonl"):
        if row["task"] == "math" and row["want"] is not None:
            answer = row["answer_text"]
            yield Case("forms of answers", row["gold"], last_boxed(answer) or answer, row["want"])


def math500(folder: Path) -> Iterator[Case]:
    """Every answer against itself, written as it is and in other ways."""
    answers = [row["answer"] for _, row in read_jsonl(folder / "math500.jsonl")]
    for gold, other in zip(answers, answers[1:] + answers[:1], strict=True):
        yield Case("MATH500, the same", gold, gold, True)
        for name, rewrite in SAME:
            yield Case(f"MATH500, {name}", gold, rewrite(gold), True)
        yield Case("MATH500, the next one's", gold, other, gold == other)


def plain_speed() -> float:
    """Gradings a minute of numbers, none like another."""
    pairs = [(f"${i:,}.{i % 10}0$", f"{i + i % 3}.{i % 10}") for i in range(PLAIN_PAIRS)]
    start = time.perf_counter()
    right = sum(grade_math(answer, gold).correct for answer, gold in pairs)
    assert right == len(range(0, PLAIN_PAIRS, 3))
    return 60 * PLAIN_PAIRS / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
