"""Formats runs and metrics as tables of plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from s1_jax.reporting.summary import Interval, Method, Run
from s1_jax.runtime.tables import align

UP_TO, SPREAD, UNDECIDED = "up to", "between seeds", "undecided"  # columns that are left out if they are empty
HEADER = (
    *("setting", "thinking tokens", "accuracy", UP_TO, "95% interval", SPREAD),
    *("problems", "ends: natural/forced/context", "ignored", "no answer", UNDECIDED),
)
METHOD_HEADER = ("method", "runs", "Control", "Scaling", "Performance", UP_TO)
NOTES = {
    SPREAD: "Between seeds: standard deviation of their accuracies",
    UNDECIDED: "Undecided: no rule could decide; counted as wrong. Up to: the accuracy if all of them were right",
}


def format_report(runs: Sequence[Run], methods: Sequence[Method], scaling_over: str) -> str:
    """Format the table of runs, then the table of metrics by method.

    The line of a run shows mean thinking tokens and ignored ends per record, accuracy with its 95% interval, and counts
    of records by how thinking ended and of records without an answer; "any right of k" is pass@k. With several seeds, a
    column shows the standard deviation of their accuracies. With undecided answers, one column counts them and another
    shows the accuracy if all of them were right. A note says if a majority compares answers as text.
    """
    rows = []
    for run in runs:
        label = ", ".join(filter(None, (run.setting.label, run.draws)))
        label += f" (mean {run.tries:.1f})" if run.setting.max_tries > 1 else ""
        spread = "" if run.between_seeds is None else f"± {run.between_seeds:.1f}"
        ends = "/".join(str(run.ends.get(end, 0)) for end in ("natural", "forced", "context"))
        ends += f" and {limited} at the limit" if (limited := run.ends.get("length")) else ""  # only without forcing
        ends += f" and {looped} repeating" if (looped := run.ends.get("repetition")) else ""
        counts = (str(run.problems), ends, f"{run.ignores_used:.1f}", str(run.without_answer))
        accuracies = accuracy_cells(run.accuracy, run.accuracy_if_undecided_right, run.interval)
        rows.append((label, f"{run.thinking_tokens:,.1f}", *accuracies, spread, *counts, str(run.undecided or "")))
        for name, of_samples in (("majority of", run.majority), ("any right of", run.pass_at)):
            for one in of_samples[1:]:
                accuracies = accuracy_cells(one.accuracy, one.accuracy_if_undecided_right, one.interval)
                tokens = f"{one.thinking_tokens:,.1f}"
                rows.append((f"  {name} {one.k}", tokens, *accuracies, "", str(run.problems), "", "", "", ""))
    metrics = []
    for method in methods:
        values = ((method.control, "{:.0f}%"), (method.scaling, "{:.1f}"), (method.performance, "{:.1f}%"))
        upper = up_to(method.performance, method.performance_if_undecided_right)
        metrics.append((method.name, str(method.runs), *(_number(value, form) for value, form in values), upper))
    table = without_empty([HEADER, *rows], (UP_TO, SPREAD, UNDECIDED))
    notes = "".join(f"{note}\n" for name, note in NOTES.items() if name in table[0])
    if as_text := sum(run.compared_as_text for run in runs):
        notes += (
            f"Majority: {as_text} votes compare answers only as numbers or text, because some records have no "
            "answer_class.\nTo compare them by the rules of the task, run: python -m s1_jax.grade RUN_DIR\n"
        )
    scope = "within one ignore count" if scaling_over == "within" else "across all ignore counts"
    return (
        f"{align(table)}\n{notes}\n{align(without_empty([METHOD_HEADER, *metrics], (UP_TO,)))}\n"
        f"Scaling: percentage points per doubling of thinking tokens, mean over all pairs of runs {scope}"
    )


def accuracy_cells(accuracy: float, if_undecided_right: float, interval: Interval) -> tuple[str, str, str]:
    """Format an accuracy, its upper limit (empty if nothing is undecided), and its interval; all in percent."""
    return f"{accuracy:.1f}%", up_to(accuracy, if_undecided_right), f"{interval[0]:.1f} to {interval[1]:.1f}"


def up_to(value: float | None, if_undecided_right: float | None) -> str:
    """Format the percentage to which undecided answers could raise a value; empty if they cannot."""
    return "" if if_undecided_right is None or if_undecided_right == value else f"{if_undecided_right:.1f}%"


def undecided_note(name: str, runs: Iterable[Run]) -> str:
    """Say in one line how many answers of the runs of `name` are undecided, and what they could change; or nothing."""
    open_runs = [run for run in runs if run.undecided]
    if not open_runs:
        return ""
    total = sum(run.undecided for run in open_runs)
    most = "; ".join(f"{run.setting.label} {run.accuracy_if_undecided_right:.1f}%" for run in open_runs)
    return f"{name}: undecided answers count as wrong, {total:,} here. Accuracy if all were right: {most}\n"


def without_empty(rows: Sequence[Sequence[str]], optional: Iterable[str]) -> list[list[str]]:
    """Drop those of the `optional` columns, named in the header, that have only empty cells."""
    header, *body = rows
    shown = [i for i, name in enumerate(header) if name not in optional or any(row[i] for row in body)]
    return [[row[i] for i in shown] for row in rows]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
