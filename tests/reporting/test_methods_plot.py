"""The figure of methods holds a line for each in each panel, told apart, and is the same bytes every time."""

import pytest

from s1_jax.reporting.methods import method_runs
from s1_jax.reporting.methods_plot import save_methods_plot
from tests.reporting.made_up import record, searched, sweep
from tests.reporting.pictures import assert_same_bytes_twice, png_size

METHODS = [
    {"method": "best_of_n", "vote": "majority", "reward": None},
    *({"method": "best_of_n", "vote": "best", "path_score": how} for how in ("last", "min", "mean", "product")),
    {"method": "best_of_n", "vote": "best", "reward": "outcome"},
    *({"method": "best_of_n", "path_score": how} for how in ("last", "min", "mean", "product")),
    *({"method": method} for method in ("beam", "dvts", "rebase", "mcts")),
]


def everything():
    drawn = [searched(i, i < width, width, **options) for i in range(9) for width in (4, 8) for options in METHODS]
    return [*sweep(), *drawn]


def dashes(line):
    return str(line._unscaled_dash_pattern)


def test_every_method_is_in_every_panel_that_it_has_a_cost_for(figures, tmp_path):
    runs = method_runs(everything())
    save_methods_plot([tmp_path / "methods.png"], runs, "a title")
    names = list(dict.fromkeys(run.name for run in runs))
    legend = figures[0].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == names and len(names) == len(METHODS) + 2
    panels = figures[0].axes
    assert [len(panel.lines) for panel in panels] == [len(names), len(names), len(METHODS)], "plain runs have no clock"
    kinds = {run.name: run.kind for run in runs}
    looks = {(kinds[name], line.get_marker(), dashes(line)) for name, line in zip(names, panels[0].lines, strict=True)}
    assert len(looks) == len(names), "those of one kind are told apart without colour"
    assert len({line.get_marker() for line in panels[0].lines}) == 8
    for panel, cost in zip(panels, ("generated_tokens", "longest_path_tokens", "seconds"), strict=True):
        shown = {(x, y) for line in panel.lines for x, y in line.get_xydata()}
        assert shown == {(x, run.accuracy) for run in runs if (x := getattr(run, cost))}
    for panel in panels:
        (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
        assert all(left < x < right and bottom < y < top for line in panel.lines for x, y in line.get_xydata())


@pytest.mark.parametrize("records", [everything(), [searched(0, True, 1)], [record(0, True, 5)], []])
def test_any_runs_make_a_png(records, tmp_path):
    path = tmp_path / "methods.png"
    save_methods_plot([path], method_runs(records), "a title")
    width, height = png_size(path)
    assert width >= 2000 and height >= 700


def test_the_same_runs_make_the_same_bytes(tmp_path):
    runs = method_runs(everything())
    assert_same_bytes_twice(lambda paths: save_methods_plot(paths, runs, "a title"), tmp_path)
