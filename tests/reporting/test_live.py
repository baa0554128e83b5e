"""What a sweep shows while it runs."""

from io import StringIO

import pytest
from rich.console import Console

from s1_jax.reporting.live import LiveTable
from tests.reporting.test_cost import SETTING


def record(maximum, thinking, correct):
    return SETTING | {"max_thinking_tokens": maximum, "num_thinking_tokens": thinking, "correct": correct}


@pytest.fixture
def terminal():
    return Console(file=StringIO(), force_terminal=True, width=120, height=12, color_system=None)


def shown(live):
    live.console.file.truncate(0)
    live.console.print(live.get_renderable())
    return live.console.file.getvalue()


def test_settings_and_speed_are_shown(terminal):
    live = LiveTable([record(4, 4, False)], 8, "3 runs", terminal)
    live.add(record(4, 2, True))
    live.add(record(None, 9, True))
    live.get_time = lambda: 10.0
    live.show(0, 100, 0.5, 1.0)
    live.get_time = lambda: 12.0
    live.show(2, 700, 0.93, 1.5)
    text = shown(live)
    assert "3/8" in text and "3 runs, 300 tokens/s, 93% of slots in use, 1.50 tokens per step" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["max", "4", "2", "50.0%", "3.0"] in rows
    assert ["natural", "end", "1", "100.0%", "9.0"] in rows


def test_undecided_answers_are_shown_apart(terminal):
    live = LiveTable([record(4, 4, False) | {"graded_by": "undecided"}, record(4, 4, True)], 8, "3 runs", terminal)
    live.add(record(None, 9, True))
    rows = [line.split() for line in shown(live).splitlines()]
    assert rows[0][-1] == "undecided"
    assert ["max", "4", "2", "50.0%", "(up", "to", "100.0%)", "4.0", "1"] in rows
    assert ["natural", "end", "1", "100.0%", "9.0", "0"] in rows
    assert "undecided" not in shown(LiveTable([record(4, 4, False)], 8, "3 runs", terminal))


def test_no_more_settings_than_fit(terminal):
    live = LiveTable([record(i, 1, True) for i in range(20)], 20, "1 run", terminal)
    text = shown(live)
    assert "and 14 more" in text and len(text.splitlines()) <= 12


def test_without_a_terminal_there_is_only_the_bar():
    live = LiveTable([record(4, 4, False)], 8, "3 runs", Console(file=StringIO(), width=120))
    text = shown(live)
    assert "1/8" in text and "max 4" not in text
