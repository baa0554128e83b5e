"""The plot holds the series it should, is a PNG of a readable size, and its words do not cover one another."""

import struct

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from s1_jax.reporting.labels import Labeller
from s1_jax.reporting.plot import save_scaling_plot, series_of
from s1_jax.reporting.summary import summarize
from tests.reporting.made_up import record, searched, sweep


def tokens(series):
    return [point.tokens for point in series.points]


def test_series():
    found = {series.label: series for series in series_of(summarize(sweep()))}
    assert tokens(found["forced maximum"]) == [8, 16, 32]
    assert tokens(found['end ignored, "Wait"']) == [40, 60, 80]
    assert tokens(found["end ignored, no string"]) == [40, 60, 80]
    assert tokens(found["majority of k samples, T = 0.8"]) == [40, 80, 160]
    assert tokens(found["no forcing"]) == [44]
    assert len(found) == 5
    assert len({(series.colour, series.marker) for series in found.values()}) == 5, "told apart without colour too"


def test_searches_are_in_a_figure_of_their_own():
    searches = [searched(i, True, width, max_thinking_tokens=16, num_ignore=3) for i in range(3) for width in (2, 4)]
    assert series_of(summarize([*sweep(), *searches])) == series_of(summarize(sweep()))


def test_budgets_are_lines_of_the_lowest_and_the_highest_ignore_count():
    grid = [
        record(0, True, min(budget, 10 + 10 * count), max_thinking_tokens=budget, num_ignore=count)
        for budget in (8, 16, 32)
        for count in (0, 1, 2)
    ]
    found = {series.label: tokens(series) for series in series_of(summarize(grid))}
    assert found == {
        "forced maximum": [8, 10, 10],
        'forced maximum, 2× "Wait"': [8, 16, 30],
        'end ignored, "Wait"': [10, 20, 30],
    }


@pytest.mark.parametrize("records", [sweep(), sweep(1), [record(0, True, 5)], [record(0, False, 0)]])
def test_any_runs_make_a_png(records, tmp_path):
    path = tmp_path / "scaling.png"
    save_scaling_plot([path], summarize(records), "a title")
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:])
    assert width >= 1400 and height >= 800


def test_the_same_runs_make_the_same_bytes(tmp_path):
    runs = summarize(sweep())
    made = []
    for name in ("a", "b"):
        paths = [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"]
        save_scaling_plot(paths, runs, "a title")
        made.append([path.read_bytes() for path in paths])
    assert made[0] == made[1] and b"<svg" in made[0][1]


def test_labels_keep_apart_and_inside():
    rng = np.random.default_rng(0)
    for _ in range(5):
        figure = Figure(figsize=(6, 4), dpi=100)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        points = rng.uniform(0.2, 0.8, (6, 2))
        axes.set(xlim=(0, 1), ylim=(0, 1))
        labeller = Labeller(axes, [points])
        for i, point in enumerate(points):
            labeller.place(f"label {i}", [tuple(point)], "black", fontsize=9)
        boxes = [text.get_window_extent() for text in axes.texts]
        assert all(not a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        frame = axes.get_window_extent()
        assert all(frame.contains(*corner) for box in boxes for corner in (box.min, box.max))
