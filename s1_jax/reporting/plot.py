"""The scaling plot: accuracy against thinking tokens, in the style of a paper."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import cycle
from math import ceil, floor, inf, log2
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from s1_jax.records.setting import Setting, string_label
from s1_jax.reporting.labels import Labeller, plain
from s1_jax.reporting.summary import Interval, Run, instruction_label
from s1_jax.runtime.files import whole_file

# Okabe and Ito's palette, which color-blind people can tell apart; markers differ too, for print without color.
IGNORES, VOTING, UNFORCED = ("#D55E00", "s"), ("#AA4499", "D"), ("#000000", "X")
BUDGETS = (("#0072B2", "o"), ("#3C9CD8", "h"))
STRINGS = (("#009E73", "^"), ("#B8860B", "v"), ("#6E6E6E", "P"), ("#332288", "*"))
INSTRUCTED = (
    ("#117733", "d"),
    ("#882255", "p"),
    ("#44AA99", "<"),
    ("#661100", ">"),
    ("#999933", "H"),
    ("#AA4466", "8"),
)
WIDEST_BAND = 20.0  # percentage points; wider intervals are drawn as bars alone, because bands would fill the plot
LONGEST_NAME = 24  # characters of an ignore string
CROWDED = 36.0  # if a name beside its points costs more than this (labels.py), all names go into a legend
BAR_OFFSET = 1.4  # points between the bars of two series at the same x
WIDTH, HEIGHT, LEGEND_ROW = 7.2, 4.4, 0.24  # inches
LEGEND_WIDTH = 100  # characters, including six for the sample of each line
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "axes.linewidth": 0.8,
    "svg.hashsalt": "s1_jax",
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "text.usetex": False,
}


Bar = tuple[float, float, float]  # x, and both ends of an interval


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of the plot, with a `note` beside it."""

    tokens: float
    accuracy: float  # percent
    interval: Interval  # percent
    setting: Setting
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
    """Points joined by a line, ordered by budget, ignore count or k."""

    label: str
    colour: str
    marker: str
    points: tuple[Point, ...]

    @property
    def band(self) -> bool:
        """Whether the intervals are narrow enough to be drawn as an area."""
        widths = [high - low for low, high in (point.interval for point in self.points)]
        return len(widths) > 1 and fmean(widths) <= WIDEST_BAND


def save_scaling_plot(paths: Sequence[Path], runs: Sequence[Run], title: str = "") -> None:
    """Write the plot of these runs in the formats of the paths' suffixes (png, svg), with the same bytes every time.

    95% intervals are bars, and also bands if they are narrow. Runs without thinking are left out. Series are named
    beside their points, or in a legend if there is no room.
    """
    drawn = [thinking for series in series_of(runs) if (thinking := _thinking(series)).points]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=200)
        axes = figure.add_axes((0.09, 0.125, 0.885, 0.8))
        for series, barred in zip(drawn, _barred(drawn), strict=True):
            _draw(axes, series, barred)
        _frame(axes, [point for series in drawn for point in series.points], title)
        if drawn:
            _label(figure, axes, drawn)
        for path in paths:
            save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically in the format of the path's suffix (png, svg), with the same bytes every time."""
    kind = path.suffix.removeprefix(".")
    with whole_file(path) as beside:
        figure.savefig(beside, format=kind, metadata={"Date": None} if kind == "svg" else None)


def series_of(runs: Sequence[Run]) -> list[Series]:
    """Group runs into lines: ignore counts over maxima, ignore strings over counts, then voting and no forcing.

    Searches have a figure of their own (methods_plot.py).
    """
    runs = [run for run in runs if run.setting.search is None]
    forced = [run for run in runs if run.setting.forcing and not run.majority]
    plain = [run for run in forced if run.setting.instruction is None]
    budgets = list(_budgets(plain))
    instructed = [run for run in forced if run.setting.instruction is not None]
    return [*budgets, *_ignores(plain, budgets), *_instructed(instructed), *_others(runs)]


def _budgets(forced: Sequence[Run]) -> Iterator[Series]:
    """Yield lines over the maximum for the main ignore string: of its lowest and its highest ignore count."""
    main = [None, *_strings(forced)[:1]]
    lines: dict[int, list[Run]] = defaultdict(list)
    for run in sorted(forced, key=lambda run: (run.setting.num_ignore, _maximum(run))):
        if run.setting.max_thinking_tokens is not None and run.setting.ignore_string in main:
            lines[run.setting.num_ignore].append(run)
    counts = [count for count, members in lines.items() if len(members) > 1]
    for count, look in zip(dict.fromkeys([*counts[:1], *counts[-1:]]), BUDGETS, strict=False):
        label = f"forced maximum, {count}× {_quoted(main[-1])}" if count else "forced maximum"
        yield Series(label, *look, tuple(_point(run) for run in lines[count]))


def _ignores(forced: Sequence[Run], budgets: Sequence[Series]) -> Iterator[Series]:
    """Yield lines over the ignore count, for one ignore string each and the largest maximum.

    If every run has a maximum, runs that it cuts are points of `budgets`, because the ignore count has no effect on
    them. Then only runs that mostly end before the maximum form these lines, and runs that are in no other line.
    """
    largest = max(map(_maximum, forced), default=inf)
    longest = [run for run in forced if _maximum(run) == largest]
    if largest < inf and budgets:
        main = [None, *_strings(forced)[:1]]
        free = [run for run in longest if run.ends.get("forced", 0) < run.records / 2]
        if len({run.setting.num_ignore for run in free}) < 2:
            free = [run for run in longest if run.setting.ignore_string not in main]
        longest = free
    for string, look in zip(_strings(longest), (IGNORES, *STRINGS), strict=False):
        members = [run for run in longest if not run.setting.num_ignore or run.setting.ignore_string == string]
        members.sort(key=lambda run: run.setting.num_ignore)
        points = tuple(_point(run, f"{run.setting.num_ignore}×") for run in members)
        yield Series(f"end ignored, {_quoted(string)}", *look, points)
    if longest and largest == inf and not _strings(longest):
        yield Series("natural end", *IGNORES, tuple(_point(run) for run in longest))


def _instructed(runs: Sequence[Run]) -> Iterator[Series]:
    """Yield lines of runs with an instruction, by its kind and by whether a maximum is set too."""
    lines: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.thinking_tokens):
        lines[instruction_label(run.setting) or ""].append(run)
    for (label, members), look in zip(lines.items(), cycle(INSTRUCTED)):
        yield Series(label, *look, tuple(_point(run, run.setting.instruction or "") for run in members))


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
    """Return the ignore strings of runs, s1's "Wait" first."""
    found = dict.fromkeys(run.setting.ignore_string for run in runs if run.setting.num_ignore)
    return sorted(found, key=lambda string: string != "Wait")


def _quoted(string: str | tuple[str, ...] | None) -> str:
    name = string_label(string)
    name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1].rstrip()}…"
    return f'"{name}"' if string else name


def _maximum(run: Run) -> float:
    return inf if run.setting.max_thinking_tokens is None else run.setting.max_thinking_tokens


def _point(run: Run, note: str = "") -> Point:
    return Point(run.thinking_tokens, run.accuracy, run.interval, run.setting, note)


def _thinking(series: Series) -> Series:
    return dataclasses.replace(series, points=tuple(point for point in series.points if point.tokens > 0))


def _barred(drawn: Sequence[Series]) -> list[np.ndarray]:
    """Return each series' bars for `draw_bars`: one for each point, even if several series share it."""
    seen: set[Bar] = set()
    bars: list[list[Bar]] = []
    for series in drawn:
        bars.append([bar for point in series.points if (bar := (point.tokens, *point.interval)) not in seen])
        seen |= set(bars[-1])
    return side_by_side(bars)


def side_by_side(bars: Sequence[Sequence[Bar]]) -> list[np.ndarray]:
    """Return each series' bars as [n, 4]: x, both ends, and the offset of the bar from x in points.

    The offset is 0 if no other series has a bar at the same x.
    """
    there: dict[float, list[int]] = defaultdict(list)
    for i, of_series in enumerate(bars):
        for place in dict.fromkeys(place for place, *_ in of_series):
            there[place].append(i)
    return [
        np.asarray([(*bar, BAR_OFFSET * (there[bar[0]].index(i) - (len(there[bar[0]]) - 1) / 2)) for bar in of_series])
        for i, of_series in enumerate(bars)
    ]


def _draw(axes: Axes, series: Series, barred: np.ndarray) -> None:
    x, y, low, high = np.asarray([(p.tokens, p.accuracy, *p.interval) for p in series.points]).T
    if series.band:
        axes.fill_between(x, low, high, color=series.colour, alpha=0.13, linewidth=0)
    draw_bars(axes, barred, series.colour, 0.4)
    rim: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.7}
    axes.plot(x, y, color=series.colour, marker=series.marker, markersize=6, linewidth=1.8, zorder=4, **rim)


def draw_bars(axes: Axes, bars: np.ndarray, colour: Any, alpha: float) -> None:
    """Draw intervals as vertical bars; `bars` is a result of `side_by_side`."""
    for place, low, high, aside in bars:
        bar = axes.vlines(place, low, high, color=colour, alpha=alpha, linewidth=1.1)
        bar.set_transform(axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans))


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
    axes.set_title(plain(title), loc="left")
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _label(figure: Figure, axes: Axes, drawn: Sequence[Series]) -> None:
    lines = [np.asarray([(point.tokens, point.accuracy) for point in series.points]) for series in drawn]
    bars = [np.asarray([(point.tokens, end) for end in point.interval]) for series in drawn for point in series.points]
    labeller = Labeller(axes, lines, bars)
    bold: dict[str, Any] = {"fontsize": 10, "fontweight": "bold", "most": CROWDED}
    names = [
        labeller.place(series.label, [(p.tokens, p.accuracy) for p in reversed(series.points)], series.colour, **bold)
        for series in drawn
    ]
    if not all(names):
        for text in list(axes.texts):
            text.remove()
        _legend(figure, axes, drawn)
        labeller = Labeller(axes, lines, bars)  # of the figure as it is now
    noted = {
        (point.note, point.tokens, point.accuracy): series.colour
        for series in reversed(drawn)
        for point in series.points
        if point.note
    }
    for (note, *at), colour in noted.items():
        labeller.place(note, [(at[0], at[1])], colour, fontsize=9)


def _legend(figure: Figure, axes: Axes, drawn: Sequence[Series]) -> None:
    """Add a legend below the axes; the figure grows, and nothing inside the axes moves."""
    columns = max(1, min(len(drawn), int(LEGEND_WIDTH / (max(len(series.label) for series in drawn) + 6))))
    below = LEGEND_ROW * ceil(len(drawn) / columns) + 0.1
    left, bottom, width, height = axes.get_position().bounds
    figure.set_size_inches(WIDTH, HEIGHT + below)
    total = HEIGHT + below
    axes.set_position((left, (bottom * HEIGHT + below) / total, width, height * HEIGHT / total))
    handles = [
        Line2D(
            [],
            [],
            color=series.colour,
            marker=series.marker,
            markeredgecolor="white",
            linewidth=1.8,
            label=plain(series.label),
        )
        for series in drawn
    ]
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=9.5, handlelength=2.2)
