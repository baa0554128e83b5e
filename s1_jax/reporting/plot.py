"""Accuracy against thinking tokens, as a paper would print it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil, floor, inf, log2
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from s1_jax.reporting.labels import Labeller
from s1_jax.reporting.summary import Interval, Run, Setting, string_label

# Okabe and Ito's palette, told apart by the colour-blind; marks differ as well, for print without colour.
IGNORES, VOTING, UNFORCED = ("#D55E00", "s"), ("#AA4499", "D"), ("#000000", "X")
BUDGETS = (("#0072B2", "o"), ("#3C9CD8", "h"))
STRINGS = (("#009E73", "^"), ("#B8860B", "v"), ("#6E6E6E", "P"), ("#332288", "*"))
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "axes.linewidth": 0.8,
    "svg.hashsalt": "s1_jax",
}


@dataclasses.dataclass(frozen=True)
class Point:
    """One mark; `note` is written beside it."""

    tokens: float
    accuracy: float  # percent
    interval: Interval  # percent
    setting: Setting
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
    """Points joined by a line, in the order of their budgets, counts or k."""

    label: str
    colour: str
    marker: str
    points: tuple[Point, ...]


def save_scaling_plot(paths: Sequence[Path], runs: Sequence[Run], title: str = "") -> None:
    """Writes the plot of these runs in the formats of the paths' endings (png, svg), the same bytes every time.

    95% intervals are bands; runs without thinking are left out.
    """
    drawn = [thinking for series in series_of(runs) if (thinking := _thinking(series)).points]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), dpi=200)
        axes = figure.add_axes((0.09, 0.125, 0.885, 0.8))
        for series in drawn:
            _draw(axes, series)
        _frame(axes, [point for series in drawn for point in series.points], title)
        if drawn:
            _label(axes, drawn)
        for path in paths:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def series_of(runs: Sequence[Run]) -> list[Series]:
    """A line per ignore count over its maxima, one per ignore string over its counts, then voting and no forcing.

    Searches are in a figure of their own (methods_plot.py).
    """
    runs = [run for run in runs if run.setting.search is None]
    forced = [run for run in runs if run.setting.forcing and not run.majority]
    return [*_budgets(forced), *_ignores(forced), *_others(runs)]


def _budgets(forced: Sequence[Run]) -> Iterator[Series]:
    """Runs with the main string that differ in their maximum: of the lowest ignore count, and of the highest."""
    main = [None, *_strings(forced)[:1]]
    lines: dict[int, list[Run]] = defaultdict(list)
    for run in sorted(forced, key=lambda run: (run.setting.num_ignore, _maximum(run))):
        if run.setting.max_thinking_tokens is not None and run.setting.ignore_string in main:
            lines[run.setting.num_ignore].append(run)
    counts = [count for count, members in lines.items() if len(members) > 1]
    for count, look in zip(dict.fromkeys([*counts[:1], *counts[-1:]]), BUDGETS, strict=False):
        label = f"forced maximum, {count}× {_quoted(main[-1])}" if count else "forced maximum"
        yield Series(label, *look, tuple(_point(run) for run in lines[count]))


def _ignores(forced: Sequence[Run]) -> Iterator[Series]:
    """Runs of one ignore string and the largest maximum that differ in their ignore count."""
    largest = max(map(_maximum, forced), default=inf)
    longest = [run for run in forced if _maximum(run) == largest]
    for string, look in zip(_strings(longest), (IGNORES, *STRINGS), strict=False):
        members = [run for run in longest if not run.setting.num_ignore or run.setting.ignore_string == string]
        members.sort(key=lambda run: run.setting.num_ignore)
        points = tuple(_point(run, f"{run.setting.num_ignore}×") for run in members)
        yield Series(f"end ignored, {_quoted(string)}", *look, points)
    if not _strings(longest) and largest == inf:
        yield Series("natural end", *IGNORES, tuple(_point(run) for run in longest))


def _others(runs: Sequence[Run]) -> Iterator[Series]:
    for run in runs:
        if run.majority:
            votes = run.majority
            points = tuple(
                Point(vote.thinking_tokens, vote.accuracy, vote.interval, run.setting, f"k={vote.k}") for vote in votes
            )
            yield Series(f"majority of k samples, T = {run.setting.temperature:g}", *VOTING, points)
        elif not run.setting.forcing:
            yield Series("no forcing", *UNFORCED, (_point(run),))


def _strings(runs: Sequence[Run]) -> list[str | tuple[str, ...] | None]:
    """Ignore strings, s1's "Wait" first."""
    found = dict.fromkeys(run.setting.ignore_string for run in runs if run.setting.num_ignore)
    return sorted(found, key=lambda string: string != "Wait")


def _quoted(string: str | tuple[str, ...] | None) -> str:
    return f'"{string_label(string)}"' if string else string_label(string)


def _maximum(run: Run) -> float:
    return inf if run.setting.max_thinking_tokens is None else run.setting.max_thinking_tokens


def _point(run: Run, note: str = "") -> Point:
    return Point(run.thinking_tokens, run.accuracy, run.interval, run.setting, note)


def _thinking(series: Series) -> Series:
    return dataclasses.replace(series, points=tuple(point for point in series.points if point.tokens > 0))


def _draw(axes: Axes, series: Series) -> None:
    x, y, low, high = np.asarray([(p.tokens, p.accuracy, *p.interval) for p in series.points]).T
    if len(series.points) > 1:
        axes.fill_between(x, low, high, color=series.colour, alpha=0.13, linewidth=0)
    axes.vlines(x, low, high, color=series.colour, alpha=0.4, linewidth=1.1)
    rim: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.7}
    axes.plot(x, y, color=series.colour, marker=series.marker, markersize=6, linewidth=1.8, zorder=4, **rim)


def _frame(axes: Axes, points: Sequence[Point], title: str) -> None:
    exponents = [log2(point.tokens) for point in points] or [4.0, 10.0]
    left, right = min(exponents) - 0.35, max(exponents) + 0.55
    axes.set_xscale("log", base=2)
    axes.set_xlim(2**left, 2**right)
    highest = max((point.interval[1] for point in points), default=100.0)
    axes.set_ylim(-0.03 * highest, min(1.12 * highest, highest + 3))
    steps = (1.0,) if right - left > 3 else (1.0, 1.5)
    ticks = [step * 2.0**i for i in range(floor(left), ceil(right)) for step in steps]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if left <= log2(tick) <= right]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: f"{tokens:,.0f}" if tokens >= 1 else f"{tokens:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("mean thinking tokens")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(title, loc="left")
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: Axes, drawn: Sequence[Series]) -> None:
    lines = [np.asarray([(point.tokens, point.accuracy) for point in series.points]) for series in drawn]
    bars = [np.asarray([(point.tokens, end) for end in point.interval]) for series in drawn for point in series.points]
    labeller = Labeller(axes, [*lines, *bars])
    for series in drawn:
        anchors = [(point.tokens, point.accuracy) for point in reversed(series.points)]
        labeller.place(series.label, anchors, series.colour, fontsize=10, fontweight="bold")
    noted = {point: series.colour for series in reversed(drawn) for point in series.points if point.note}
    for point, colour in noted.items():
        labeller.place(point.note, [(point.tokens, point.accuracy)], colour, fontsize=9)
