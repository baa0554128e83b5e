"""The speed and the time left that a progress bar shows while requests are decoded."""

import pytest

from s1_jax.decoding import note as module
from s1_jax.decoding.engine import Status
from s1_jax.decoding.note import DecodingNote


@pytest.fixture
def clock(monkeypatch):
    """`clock(seconds)` sets what the time is."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def test_speed_and_time_left_of_requests(clock, capsys):
    with DecodingNote("decoding 10 prompts") as note:

        def at(seconds, done, decoded, recorded):
            clock(seconds)
            status = Status(done, 10, decoded, 1.0, 1.0, recorded)
            note.show(status)
            return str(note), note.seconds_left(status)

        assert at(50, 0, 0, 20) == ("", None), "until then the first programs were compiled"
        assert at(52, 0, 0, 220) == ("100 tokens/s", None)
        assert at(54, 2, 200, 420) == ("100 tokens/s", pytest.approx((800 - 220) / 100))
        note._watch.spent += 46
        assert at(104, 5, 500, 820) == ("100 tokens/s", pytest.approx((500 - 320) / 100)), "compiling takes no speed"
        assert at(106, 9, 900, 1020) == ("100 tokens/s", 0.0)
    assert capsys.readouterr().err == "decoding 10 prompts\n"
