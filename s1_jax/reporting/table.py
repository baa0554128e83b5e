"""Runs and metrics as aligned plain text."""

from __future__ import annotations

from collections.abc import Sequence

from s1_jax.reporting.summary import Interval, Method, Run

HEADER = (
    *("setting", "thinking tokens", "accuracy", "95% interval", "between seeds"),
    *("problems", "ends: natural/forced/context", "ignored", "no answer"),
)
METHOD_HEADER = ("method", "runs", "Control", "Scaling", "Performance")


def format_report(runs: Sequence[Run], methods: Sequence[Method], scaling_over: str) -> str:
    """The table of runs, then the metrics of each method.

    A run's line has means of thinking tokens and ignored ends per record, accuracy with its 95% interval, and counts of
    records by how thinking ended and of those without an answer; "any right of k" is pass@k. Where a run has several
    seeds, a column tells the standard deviation of their accuracies.
    """
    rows = []
    for run in runs:
        label = ", ".join(filter(None, (run.setting.label, run.draws)))
        label += f" (mean {run.tries:.1f})" if run.setting.max_tries > 1 else ""
        spread = "" if run.between_seeds is None else f"± {run.between_seeds:.1f}"
        ends = "/".join(str(run.ends.get(end, 0)) for end in ("natural", "forced", "context"))
        counts = (str(run.problems), ends, f"{run.ignores_used:.1f}", str(run.without_answer))
        rows.append((label, *_outcome(run.thinking_tokens, run.accuracy, run.interval), spread, *counts))
        for name, of_samples in (("majority of", run.majority), ("any right of", run.pass_at)):
            for one in of_samples[1:]:
                outcome = _outcome(one.thinking_tokens, one.accuracy, one.interval)
                rows.append((f"  {name} {one.k}", *outcome, "", str(run.problems), "", "", ""))
    metrics = []
    for method in methods:
        values = ((method.control, "{:.0f}%"), (method.scaling, "{:.1f}"), (method.performance, "{:.1f}%"))
        metrics.append((method.name, str(method.runs), *(_number(value, form) for value, form in values)))
    shown = [i for i, name in enumerate(HEADER) if name != "between seeds" or any(row[i] for row in rows)]
    table = [[row[i] for i in shown] for row in (HEADER, *rows)]
    spreads = "Between seeds: standard deviation of their accuracies\n" if len(shown) == len(HEADER) else ""
    scope = "within one ignore count" if scaling_over == "within" else "across all ignore counts"
    return (
        f"{align(table)}\n{spreads}\n{align([METHOD_HEADER, *metrics])}\n"
        f"Scaling: percentage points per doubling of thinking tokens, mean over all pairs of runs {scope}"
    )


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines of equal columns under a ruled header; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([row[0].ljust(len(first)), *rest]).rstrip())
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def _outcome(tokens: float, accuracy: float, interval: Interval) -> tuple[str, str, str]:
    return f"{tokens:,.1f}", f"{accuracy:.1f}%", f"{interval[0]:.1f} to {interval[1]:.1f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
