"""The plot holds the series it should, is a PNG of a readable size, and its words do not cover one another."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from s1_jax.reporting.labels import Labeller
from s1_jax.reporting.plot import save_scaling_plot, series_of
from s1_jax.reporting.summary import summarize
from tests.reporting.made_up import record, searched, sweep
from tests.reporting.pictures import assert_same_bytes_twice, png_size


def forced(maximum, count=0, right=5, problems=10, **fields):
    """Records of runs that their maximum cuts."""
    setting = {"max_thinking_tokens": maximum, "num_ignore": count, "end": "forced"} | fields
    return [record(i, i < right, maximum, **setting) for i in range(problems)]


def free(tokens, count=0, right=5, problems=10, **fields):
    """Records of runs that end by themselves."""
    return [record(i, i < right, tokens, num_ignore=count, **fields) for i in range(problems)]


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


MAXIMA = (8, 16, 32)
BUDGETS_4 = {'forced maximum, 4× "Wait"': [8, 16, 32]}


@pytest.mark.parametrize(
    "records, expected",
    [
        ([*(r for m in MAXIMA for r in forced(m, 4))], BUDGETS_4),
        ([*(r for m in MAXIMA for r in forced(m))], {"forced maximum": [8, 16, 32]}),
        (  # cut at the same place whatever is ignored
            [*(r for m in MAXIMA for k in (0, 2) for r in forced(m, k))],
            {"forced maximum": [8, 16, 32], 'forced maximum, 2× "Wait"': [8, 16, 32]},
        ),
        (  # the largest maximum lets runs end
            [
                *(r for m in MAXIMA for r in forced(m)),
                *free(40, 0, max_thinking_tokens=99),
                *free(50, 1, max_thinking_tokens=99),
            ],
            {"forced maximum": [8, 16, 32, 40], 'end ignored, "Wait"': [40, 50]},
        ),
        (  # one of the two is cut
            [*(r for m in MAXIMA for r in forced(m, 1)), *free(30, 0, max_thinking_tokens=32)],
            {'forced maximum, 1× "Wait"': [8, 16, 32]},
        ),
        (  # another string's are in no other series
            [*(r for m in MAXIMA for r in forced(m, 1)), *forced(32, 1, ignore_string="Hmm")],
            {'forced maximum, 1× "Wait"': [8, 16, 32], 'end ignored, "Hmm"': [32]},
        ),
        (  # a single maximum makes no line over maxima
            [*(r for k in (0, 1, 2) for r in free(20 + 5 * k, k, max_thinking_tokens=99))],
            {'end ignored, "Wait"': [20, 25, 30]},
        ),
        (forced(32, 1), {'end ignored, "Wait"': [32]}),
        ([*(r for m in MAXIMA for r in forced(m, 4)), *free(50, 4)], BUDGETS_4 | {'end ignored, "Wait"': [50]}),
    ],
)
def test_runs_that_all_have_a_maximum_are_no_series_of_ends_ignored_too(records, expected):
    assert {series.label: tokens(series) for series in series_of(summarize(records))} == expected


def test_runs_with_an_instruction_are_series_of_their_own():
    settings = ((900, "short"), (2000, "long"), (400, "token 512"), (800, "token 1024"), (1200, None))
    runs = summarize([one for count, words in settings for one in free(count, instruction=words)])
    found = {series.label: [(p.note, p.tokens) for p in series.points] for series in series_of(runs)}
    assert found == {
        "natural end": [("", 1200)],
        "token-conditional control": [("token 512", 400), ("token 1024", 800)],
        "class-conditional control": [("short", 900), ("long", 2000)],
    }


@pytest.mark.parametrize("problems, band", [(4, False), (10, False), (30, False), (500, True)])
def test_intervals_of_few_problems_are_bars_alone(problems, band, figures, tmp_path):
    records = [one for m in MAXIMA for one in forced(m, right=problems // 2, problems=problems)]
    (series,) = series_of(summarize(records))
    assert series.band == band
    save_scaling_plot([tmp_path / "scaling.png"], summarize(records))
    kinds = [type(drawn).__name__ for drawn in figures[0].axes[0].collections]
    assert kinds.count("FillBetweenPolyCollection") == band and kinds.count("LineCollection") == len(MAXIMA)


LONG = (
    "Wait, let me check this again from the very beginning",
    "Hold on, is that right? Let me see",
    "Alternatively, we could",
)
FEW_POINTS = {
    "one": free(900),
    "one, of two problems": free(900, problems=2, right=0),
    "two, close": [*free(900), *free(905, 1)],
    "two, alike": [*free(900), *free(900, 1)],
    "two, far": [*free(9), *free(9000, 1, right=9)],
    "three": [*forced(64, right=1), *forced(128), *free(300)],
    "three, alike": [one for k in range(3) for one in free(300, k)],
    "three strings": [*free(700), *(one for i, s in enumerate(LONG) for one in free(900 + i, 1, ignore_string=s))],
    "five, nothing right": [*free(300, right=0), *(r for m in (64, 65, 66, 900) for r in forced(m, right=0))],
    "twelve": [
        *(one for m in (8, 16, 32, 64, 128) for one in forced(m, 4, right=m // 16)),
        *free(200),
        *(
            one
            for i, s in enumerate(LONG)
            for k in (1, 2)
            for one in free(200 + 9 * i + 3 * k, k, 5 + i, ignore_string=s)
        ),
    ],
    "instructions": [
        one
        for i, words in enumerate(("short", "long", "token 512", "token 1024", "step 16", "step 32"))
        for one in free(300 + 5 * i, instruction=words)
    ],
}


@pytest.mark.parametrize("name", FEW_POINTS)
def test_words_keep_apart_however_few_or_close_the_points(name, figures, tmp_path):
    runs = summarize(FEW_POINTS[name])
    save_scaling_plot([tmp_path / "scaling.png"], runs, "a title")
    (figure,) = figures
    axes = figure.axes[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    beside = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert all(not a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    frame = axes.get_window_extent(renderer)
    assert all(frame.contains(*corner) for box in boxes for corner in (box.min, box.max))
    legend = [text.get_text() for one in figure.legends for text in one.get_texts()]
    names = [series.label for series in series_of(runs)]
    assert (legend == names and not set(names) & set(beside)) or (not legend and set(names) <= set(beside))
    for one in figure.legends:
        box = one.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width, "the legend is whole"
        assert box.y1 <= axes.get_tightbbox(renderer).y0, "below the axes and their name"


@pytest.mark.parametrize("records", [sweep(), sweep(1), [record(0, True, 5)], [record(0, False, 0)]])
def test_any_runs_make_a_png(records, tmp_path):
    path = tmp_path / "scaling.png"
    save_scaling_plot([path], summarize(records), "a title")
    width, height = png_size(path)
    assert width >= 1400 and height >= 800


def test_the_same_runs_make_the_same_bytes(tmp_path):
    runs = summarize(sweep())
    assert_same_bytes_twice(lambda paths: save_scaling_plot(paths, runs, "a title"), tmp_path)


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
