"""The figure of all methods: accuracy against generated tokens, the longest run, and seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from math import ceil, floor, log2
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from s1_jax.records.names import KINDS
from s1_jax.reporting.labels import plain
from s1_jax.reporting.methods import MethodRun
from s1_jax.reporting.plot import STYLE, draw_bars, save_figure, side_by_side

# one color for each kind of method, so that figures agree; Okabe and Ito's palette, as in plot.py
COLOURS = dict(
    zip(
        KINDS,
        ("#000000", "#AA4499", "#0072B2", "#3C9CD8", "#009E73", "#B8860B", "#D55E00", "#332288"),
        strict=True,
    )
)
MARKERS = "osD^vPXp"  # series of one kind differ in marker, line and lightness
LINES = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (5, 1.5, 1, 1.5)))
LIGHTER, LIGHTEST = 0.18, 0.55  # fraction of white in the color: added for each series of a kind, and at most
PANELS: tuple[tuple[str, Callable[[MethodRun], float | None]], ...] = (
    ("generated tokens per problem", lambda run: run.generated_tokens),
    ("thinking tokens of the longest run", lambda run: run.longest_path_tokens),
    ("seconds per problem, decoding and scoring", lambda run: run.seconds),
)
LEGEND_COLUMNS, LEGEND_ROW, PANEL_HEIGHT = 4, 0.24, 3.3  # inches
MOST_TICKS = 8


def save_methods_plot(paths: Sequence[Path], runs: Sequence[MethodRun], title: str = "") -> None:
    """Write the figure in the formats of the paths' suffixes (png, svg), with the same bytes every time.

    The points of a method at its sizes are joined by a line; bars are 95% intervals. Plain runs are not timed, so they
    are missing from the last panel.
    """
    series = [list(members) for _, members in groupby(runs, key=lambda run: run.name)]
    looks = [_look(i, series) for i in range(len(series))]
    below = 0.62 + LEGEND_ROW * ceil(len(series) / LEGEND_COLUMNS)
    height = PANEL_HEIGHT + below + 0.35
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.5, height), dpi=200)
        grid = dict(left=0.055, right=0.99, bottom=below / height, top=1 - 0.35 / height, wspace=0.07)
        panels = figure.subplots(1, len(PANELS), sharey=True, gridspec_kw=grid)
        for axes, (label, cost) in zip(panels, PANELS, strict=True):
            points = [[(x, run.accuracy, *run.interval) for run in members if (x := cost(run))] for members in series]
            bars = side_by_side([[(x, low, high) for x, _, low, high in of_series] for of_series in points])
            for of_series, barred, look in zip(points, bars, looks, strict=True):
                if of_series:
                    _draw(axes, np.asarray(of_series), barred, look)
            _frame(axes, [x for run in runs if (x := cost(run))], label)
        panels[0].set_ylabel("accuracy (%)")
        panels[0].yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        panels[0].set_title(plain(title), loc="left")
        handles = [
            Line2D([], [], color=colour, marker=marker, linestyle=line, markeredgecolor="white", linewidth=1.6)
            for colour, marker, line in looks
        ]
        names = [plain(members[0].name) for members in series]
        figure.legend(
            handles, names, loc="lower center", ncols=LEGEND_COLUMNS, frameon=False, fontsize=9, handlelength=3.2
        )
        for path in paths:
            save_figure(figure, path)


Look = tuple[Any, str, Any]  # color, marker, line


def _look(i: int, series: Sequence[Sequence[MethodRun]]) -> Look:
    """Choose the look of series `i`; no two series share color, marker and line."""
    kind = series[i][0].kind
    before = sum(members[0].kind == kind for members in series[:i])
    start = KINDS.index(kind)
    white = min(LIGHTER * before, LIGHTEST)
    colour = tuple((1 - white) * part + white for part in to_rgb(COLOURS[kind]))
    return colour, MARKERS[(start + before) % len(MARKERS)], LINES[before % len(LINES)]


def _draw(axes: Axes, points: np.ndarray, barred: np.ndarray, look: Look) -> None:
    x, y, *_ = points.T
    colour, marker, line = look
    draw_bars(axes, barred, colour, 0.28)
    rim: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6}
    axes.plot(x, y, color=colour, marker=marker, linestyle=line, markersize=5.5, linewidth=1.6, zorder=4, **rim)


def _frame(axes: Axes, costs: Sequence[float], label: str) -> None:
    exponents = [log2(cost) for cost in costs] or [0.0, 4.0]
    left, right = min(exponents) - 0.4, max(exponents) + 0.4
    axes.set_xscale("log", base=2)
    axes.set_xlim(2**left, 2**right)
    every = ceil((right - left) / MOST_TICKS)
    axes.xaxis.set_major_locator(FixedLocator([2.0**i for i in range(ceil(left), floor(right) + 1) if i % every == 0]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: _short(cost)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _short(cost: float) -> str:
    """Format a power of two as people write it: 1/8, 64, 2k, 1M."""
    for size, unit in ((2**20, "M"), (2**10, "k")):
        if cost >= size:
            return f"{cost / size:,.0f}{unit}"
    return f"{cost:.0f}" if cost >= 1 else f"1/{1 / cost:.0f}"
