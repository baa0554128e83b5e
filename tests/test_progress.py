"""The progress bar, in a terminal and beside a file."""

from __future__ import annotations

import pytest

from s1_jax.progress import clock_time, progress_bar


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
