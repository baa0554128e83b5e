"""The progress bar, in a terminal and beside a file."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from s1_jax.runtime.progress import clock_time, progress_bar


@pytest.fixture
def terminal(monkeypatch):
    """Standard error looks like a terminal to rich; standard output does not."""
    monkeypatch.setenv("FORCE_COLOR", "1")


def test_what_is_printed_into_a_file_stays_there_while_the_bar_is_on_the_terminal(terminal, capsys):
    with progress_bar() as bar:
        bar.add_task("working", total=2, note="")
        print("a line for the file")
    written = capsys.readouterr()
    assert written.out == "a line for the file\n" and "working" in written.err


def test_the_callers_time_to_go_is_shown(terminal, capsys):
    with progress_bar() as bar:
        row = bar.add_task("working", total=2, note="")
        bar.update(row, completed=1, seconds_left=3723.4, note="well")
    assert "1:02:03" in capsys.readouterr().err


def test_durations():
    assert [clock_time(seconds) for seconds in (0, 59.6, 3599, 360000)] == [
        "0:00:00",
        "0:01:00",
        "0:59:59",
        "100:00:00",
    ]


@pytest.fixture
def told(monkeypatch):
    """A bar in a terminal of 100 columns, or another width, whose clock the test turns, and what it shows."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = progress_bar()
    time = [100.0]
    bar.get_time = lambda: time[0]

    def shown(width=100):
        console = Console(width=width, file=StringIO(), color_system=None)
        console.print(bar.get_renderable())
        return console.file.getvalue()

    return bar, time, shown


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_cuts_the_note_and_no_label(told, width):
    bar, _, shown = told
    bar.add_task(
        "decoding", total=3500, completed=3, note="500 runs, 3,466 tokens/s, 73% of slots in use", seconds_left=9
    )
    assert "decoding" in shown(width) and "3/3500 elapsed 0:00:00 left 0:00:09 500" in shown(width)


def test_both_times_have_their_names(told):
    bar, time, shown = told
    row = bar.add_task("working", total=4, note="well")
    bar.update(row, completed=1, seconds_left=90)
    time[0] += 7
    assert "elapsed 0:00:07 left 0:01:23 well" in " ".join(shown().split())


def test_the_time_left_counts_down_between_two_updates_and_stays_above_nothing(told):
    bar, time, shown = told
    row = bar.add_task("working", total=4, note="")
    bar.update(row, completed=1, seconds_left=60)
    lines = []
    for _ in range(4):
        lines.append(shown())
        time[0] += 25
    assert [line.split("left ")[1].split()[0] for line in lines] == ["0:01:00", "0:00:35", "0:00:10", "0:00:00"]
    bar.update(row, note="something else")  # no news of the time
    assert "left 0:00:00" in shown()
    bar.update(row, completed=2, seconds_left=50)
    assert "left 0:00:50" in shown()


def test_a_time_left_that_rich_estimates_counts_down_too(told):
    bar, time, shown = told
    row = bar.add_task("working", total=10, note="")
    for _ in range(4):
        time[0] += 10
        bar.advance(row)
    assert "left 0:01:00" in shown()
    time[0] += 5
    assert "left 0:00:55" in shown()
