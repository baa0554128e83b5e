"""Report of a curation: the funnel as a table and a plot, and statistics of the chosen questions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from s1_jax.curation.sources import fold
from s1_jax.curation.stages import Count
from s1_jax.data.sources import read_rows
from s1_jax.errors import UserError
from s1_jax.reporting.labels import plain
from s1_jax.reporting.plot import BUDGETS, IGNORES, STYLE, save_figure

BAR, MARGINS = 0.27, 0.75  # inches
EXAMPLES, LONGEST_EXAMPLE = 3, 300  # rows shown, and characters of each text
UNSHOWN = "gpqa"  # its authors ask that its questions are not published in plain text


class Overlap(NamedTuple):
    """Number of chosen questions that another set contains too."""

    name: str
    shared: int
    questions: int  # of that set


def funnel_rows(counts: Sequence[Count]) -> list[tuple[str, str, str, str]]:
    """Return the table of stages and rules, with rows dropped and left, without stages that never drop rows."""
    header = ("stage", "rule", "dropped", "left")
    shown = [count for i, count in enumerate(counts) if count.rule or i == 0]
    return [header, *((c.stage, c.rule or "all", f"{c.dropped:,}", f"{c.left:,}") for c in shown)]


def save_funnel_plot(path: Path, counts: Sequence[Count]) -> None:
    """Plot bars of the rows left at the start and after every rule that dropped some, as png or svg."""
    steps = [count for i, count in enumerate(counts) if count.dropped or i == 0]
    start = steps[0].left + steps[0].dropped
    labels = ["all questions", *(plain(f"{c.stage}: {c.rule.replace('_', ' ')}") for c in steps if c.dropped)]
    left = [start, *(c.left for c in steps if c.dropped)]
    height = MARGINS + BAR * len(left)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, height), dpi=200)
        axes = figure.add_axes((0.31, 0.5 / height, 0.6, BAR * len(left) / height))
        bars = np.arange(len(left))
        axes.barh(bars, [start, *left[:-1]], color=BUDGETS[0][0], alpha=0.13, height=0.72, linewidth=0)  # before
        colours = [BUDGETS[0][0]] * (len(left) - 1) + [IGNORES[0] if len(left) > 1 else BUDGETS[0][0]]
        axes.barh(bars, left, color=colours, height=0.72, linewidth=0)
        for bar, rows, before in zip(bars, left, [start, *left[:-1]], strict=True):
            axes.annotate(f"{rows:,}", (before, bar), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_yticks(bars, labels)
        axes.invert_yaxis()
        axes.set_ylim(len(left) - 0.5, -0.5)
        axes.set_xlim(0, max(start, 1))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rows, _: f"{rows:,.0f}"))
        axes.set_xlabel("questions left")
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
        save_figure(figure, path)


def group_rows(table: pa.Table, column: str) -> list[tuple[str, str, str]]:
    """Return a table of a column's values with their rows and mean thinking tokens, most rows first."""
    groups = (
        pa.table({"value": pc.fill_null(table[column], "unknown"), "tokens": table["thinking_tokens"]})
        .group_by("value")
        .aggregate([([], "count_all"), ("tokens", "mean")])
        .sort_by([("count_all", "descending"), ("value", "ascending")])
    )
    return [
        (column, "rows", "mean thinking tokens"),
        *((g["value"], f"{g['count_all']:,}", _figure(g["tokens_mean"])) for g in groups.to_pylist()),
    ]


def length_rows(table: pa.Table) -> list[tuple[str, ...]]:
    """Return a table of the rows' thinking tokens: total, mean and quantiles."""
    tokens = table["thinking_tokens"]
    header = ("total tokens", "mean", "minimum", "10%", "median", "90%", "maximum")
    shares = pc.quantile(tokens, [0, 0.1, 0.5, 0.9, 1]).to_pylist()
    return [header, tuple(_figure(value) for value in (pc.sum(tokens).as_py(), pc.mean(tokens).as_py(), *shares))]


def example_lines(table: pa.Table) -> list[str]:
    """Format the first rows of different sources as Markdown with shortened texts, without the source UNSHOWN."""
    lines, seen = [], set()
    for row in table.select(["question", "source", "domain", "thinking", "attempt", "thinking_tokens"]).to_pylist():
        if (name := row["source"] or "unknown") in seen or UNSHOWN in name.lower():
            continue
        seen.add(name)
        lines += [f"### {name}, {row['domain'] or 'unknown'}, {_figure(row['thinking_tokens'])} thinking tokens", ""]
        for field in ("question", "thinking", "attempt"):
            lines += [f"**{field}:** {_cut(row[field] or '')}", ""]
        if len(seen) == EXAMPLES:
            break
    return lines


def overlap_with(name: str, table: pa.Table) -> Overlap:
    """Count the questions shared with another set, local or on the hub, by id or by text without case and white space.

    A row of that set without a text counts if it has the hash of its question as `qhash`. Raises UserError for rows
    without a column of questions.
    """
    ids = set(table["id"].to_pylist())
    texts = {fold(text) for text in table["question"].to_pylist()}
    shared = questions = 0
    for row in read_rows(name, "train"):
        if "question" not in row.columns:
            raise UserError(f"{row.where}: no column 'question'; it has {', '.join(row.columns)}")
        text = row.columns["question"]
        questions += 1
        hashed = row.columns.get("qhash") if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]
        shared += hashed in ids or (text is not None and fold(text) in texts)
    return Overlap(Path(name).name if Path(name).exists() else name, shared, questions)  # without the local path


def markdown_table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Format rows with their header as a Markdown table, with all columns but the first right-aligned."""
    header, *rest = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rest)]


def report_lines(table: pa.Table, counts: Sequence[Count], overlap: Overlap | None) -> list[str]:
    """Return the report on the chosen rows as Markdown; it refers to funnel.png in the same folder."""
    lines = ["## Funnel", "", *markdown_table(funnel_rows(counts)), "", "![questions left](funnel.png)", ""]
    lines += ["## Lengths", "", *markdown_table(length_rows(table)), ""]
    for column in ("chosen_by", "source", "domain"):
        lines += [f"## By {column.replace('_', ' ')}", "", *markdown_table(group_rows(table, column)), ""]
    if overlap is not None:
        lines += ["## Overlap", "", f"{overlap.shared:,} of the {overlap.questions:,} questions of {overlap.name}.", ""]
    examples = example_lines(table)
    return [*lines, "## Examples", "", *examples] if examples else lines


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _cut(text: str) -> str:
    """Shorten a text to one line without markup."""
    text = " ".join(text.split())
    text = text if len(text) <= LONGEST_EXAMPLE else text[:LONGEST_EXAMPLE].rstrip() + " ..."
    return "`` " + text.replace("``", "` `") + " ``" if text else ""
