"""Compares two runs setting by setting, over shared problems: `python -m s1_jax.evaluate --compare RUN_A RUN_B`."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from s1_jax.errors import UserError
from s1_jax.records import Record
from s1_jax.records.results import read_run
from s1_jax.records.setting import Setting
from s1_jax.reporting.metrics import ENOUGH, RESAMPLES, TAIL, cautious_interval, few_differ, paired_bootstrap
from s1_jax.reporting.summary import Interval, summarize
from s1_jax.reporting.table import undecided_note
from s1_jax.runtime.files import write_whole
from s1_jax.runtime.locks import locked_file
from s1_jax.runtime.storage import as_path
from s1_jax.runtime.tables import align
from s1_jax.runtime.terminal import say

Shares = Mapping[str, float]  # problem -> fraction of its samples, over all seeds, that are right

HEADER = ("setting", "problems", "A", "B", "B - A", "better/worse", "95% interval", "")


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two accuracies over the same problems, in percent, and their difference."""

    label: str
    problems: int
    first: float
    second: float
    difference: float  # percentage points, second - first
    interval: Interval  # percentage points, 95%: paired bootstrap, or `cautious_interval` if few problems differ
    within_noise: bool  # the interval contains 0
    better: int  # problems of which the second run solves a larger fraction
    worse: int  # problems of which the second run solves a smaller fraction
    few_differ: bool  # too few problems differ for a bootstrap (metrics.few_differ)

    @property
    def note(self) -> str:
        """Comment on the interval in a few words; may be empty."""
        told = ["within noise"] if self.within_noise else []
        if self.few_differ:
            told.append("no problem differs" if not self.better + self.worse else "few problems differ")
        return ", ".join(told)


def command(argv: Sequence[str]) -> None:
    """Print the comparison of two run folders; a third argument names a JSON file to write it to.

    Raises UserError if the runs share no problem or no setting.
    """
    if len(argv) not in (2, 3):
        raise UserError("usage: python -m s1_jax.evaluate --compare RUN_A RUN_B [COMPARE.json]")
    first, second = (read_run(as_path(folder))[0] for folder in argv[:2])
    check_same_problems(first, second, argv[0], argv[1])
    found, best = compare(first, second), compare_best(first, second)
    if not found:
        labels = ["; ".join(run.setting.label for run in summarize(records)) for records in (first, second)]
        raise UserError(f"no setting in both runs: {argv[0]} has {labels[0]}, {argv[1]} has {labels[1]}")
    if len(argv) == 3:
        settings = [dataclasses.asdict(one) for one in found]
        written = {"runs": list(argv[:2]), "settings": settings, "best": dataclasses.asdict(best)}
        target = as_path(argv[2])
        with locked_file(target):
            write_whole(target, json.dumps(written, indent=2) + "\n")
    say(f"A: {argv[0]}\nB: {argv[1]}\n\n{format_comparison([*found, best])}")
    say(undecided_note("A", summarize(first)) + undecided_note("B", summarize(second)), end="")


def check_same_problems(first: Sequence[Record], second: Sequence[Record], *names: str) -> None:
    """Raise UserError if two runs, called by `names`, share no problem, or one id stands for two problems."""
    tasks = [", ".join(sorted({str(record["task"]) for record in records})) for records in (first, second)]
    golds: list[dict[str, Any]] = [
        {str(r["problem_id"]): r.get("gold") for r in records} for records in (first, second)
    ]
    if tasks[0] != tasks[1]:
        raise UserError(f"{names[0]} is of the task {tasks[0]}, {names[1]} of {tasks[1]}; compare runs of one task")
    shared = golds[0].keys() & golds[1].keys()
    if not shared:
        raise UserError(f"{names[0]} and {names[1]} have no problem in common")
    if differing := sorted(problem for problem in shared if golds[0][problem] != golds[1][problem]):
        raise UserError(
            f"problem {differing[0]} is another one in {names[1]} than in {names[0]} (its right answer differs); "
            "compare runs of the same problems"
        )


def compare(first: Sequence[Record], second: Sequence[Record]) -> list[Difference]:
    """Compute a difference for every setting that both runs have, in the order of the report's table."""
    ours, theirs = shares(first), shares(second)
    both = [run.setting for run in summarize(first) if run.setting in theirs]
    found = [difference(setting.label, ours[setting], theirs[setting]) for setting in both]
    return [one for one in found if one is not None]


def compare_best(first: Sequence[Record], second: Sequence[Record]) -> Difference:
    """Compare the best setting of each run, whether the other run has it or not, over their shared problems.

    Each setting was chosen by the same answers that it is judged by, so the interval is a little too narrow.
    """
    runs = [max(summarize(records), key=lambda run: run.accuracy) for records in (first, second)]
    a, b = (shares(records)[run.setting] for records, run in zip((first, second), runs, strict=True))
    best = difference(f"best of each: {runs[0].setting.label} | {runs[1].setting.label}", a, b)
    if best is None:
        raise UserError("the best settings of the two runs have no problem in common")
    return best


def shares(records: Sequence[Record]) -> dict[Setting, Shares]:
    """Return the fraction of right records of each setting and problem, over samples and seeds."""
    right: dict[Setting, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        right[Setting.of(record)][str(record["problem_id"])].append(bool(record["correct"]))
    return {setting: {name: fmean(of) for name, of in problems.items()} for setting, problems in right.items()}


def difference(label: str, first: Shares, second: Shares) -> Difference | None:
    """Compute the difference over the problems that both have; None if there are none."""
    both = sorted(first.keys() & second.keys())
    if not both:
        return None
    a, b = ([of[problem] for problem in both] for of in (first, second))
    few = few_differ(a, b)
    low, high = (100 * end for end in (cautious_interval if few else paired_bootstrap)(a, b))
    means = 100 * fmean(a), 100 * fmean(b)
    return Difference(
        label,
        len(both),
        *means,
        means[1] - means[0],
        (low, high),
        within_noise=low <= 0 <= high,
        better=sum(ours < theirs for ours, theirs in zip(a, b, strict=True)),
        worse=sum(ours > theirs for ours, theirs in zip(a, b, strict=True)),
        few_differ=few,
    )


def format_comparison(found: Sequence[Difference]) -> str:
    """Format a table with a line for each difference, and notes on it."""
    rows = [
        (
            one.label,
            str(one.problems),
            f"{one.first:.1f}%",
            f"{one.second:.1f}%",
            f"{one.difference:+.1f}",
            f"{one.better}/{one.worse}",
            f"{one.interval[0]:+.1f} to {one.interval[1]:+.1f}",
            one.note,
        )
        for one in found
    ]
    lines = [
        align([HEADER, *rows]),
        "better/worse: number of problems that B solves more often than A, and less often.",
        f"Differences are in percentage points; intervals are from {RESAMPLES:,} paired resamples of the problems.",
        "Within noise: the interval contains 0.",
    ]
    if any(one.few_differ for one in found):
        lines.append(
            f"Few problems differ: fewer than {ENOUGH}, too few for a bootstrap. The interval allows for a problem of "
            "a kind that was not seen."
        )
    if same := [one for one in found if one.few_differ and not one.better + one.worse]:
        fewest = min(one.problems for one in same)
        lines.append(
            f"No problem differs: this does not prove that A and B are equal. {fewest:,} such problems cannot rule out "
            f"a difference of up to {100 * (1 - TAIL ** (1 / fewest)):.1f} points either way."
        )
    return "\n".join(lines)
