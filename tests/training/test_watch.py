"""What is measured of a step: on a clock that the test turns, with devices and a profiler that are played."""

from __future__ import annotations

import types

import jax
import pytest

from s1_jax.errors import UserError
from s1_jax.training.watch import StepClock, Trace, device_memory


class Time:
    """A clock that goes on only when told."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds

    def pass_by(self, seconds):
        self.seconds += seconds


def test_compilation_and_input_wait_are_told_apart():
    time = Time()
    clock = StepClock(time)

    def loader():
        for number, wait in enumerate((3.0, 0.5, 0.25)):
            time.pass_by(wait)
            yield number

    steps = clock.waiting(loader())
    next(steps)  # the first step's input, before any step
    news, took = [], []
    for shape in ((1, 8, 256), (1, 8, 256), (1, 8, 512)):
        with clock.step():
            with clock.compiling("step", shape) as new:
                news.append(new)
                time.pass_by(60 if new else 0)
            next(steps, None)
            time.pass_by(2)
        took.append(clock.took)
    assert news == [True, False, True]
    assert [step.compilation for step in took] == [60, None, 60]
    assert [step.input_wait for step in took] == [0.5, 0.25, 0]
    assert [step.seconds for step in took] == [2.5, 2.25, 2]


def test_time_to_go_counts_what_lies_between_steps_but_no_compilation():
    time = Time()
    clock = StepClock(time)
    for _ in range(4):
        with clock.step(), clock.compiling("step", (1,)) as new:
            time.pass_by(1000 if new else 2)
        with clock.compiling("held-out loss", (1,)) as new:
            time.pass_by(500 if new else 1)
        time.pass_by(1)  # a checkpoint
    # three more steps of 2 s, four checkpoints of 1 s, three held-out losses of 1 s: 13 s for 4 steps
    assert clock.seconds_left(8) == 26


def test_memory_is_that_of_the_fullest_device(monkeypatch):
    full = {"bytes_in_use": 3 * 2**30, "peak_bytes_in_use": 5 * 2**30, "bytes_limit": 16 * 2**30}
    told = [full, full | {"bytes_in_use": 4 * 2**30}]
    devices = [types.SimpleNamespace(memory_stats=lambda stats=stats: stats) for stats in told]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert device_memory() == {"hbm_gib": 4, "hbm_peak_gib": 5, "hbm_limit_gib": 16}


def test_a_cpu_does_not_tell_its_memory():
    assert device_memory() == {"hbm_gib": None, "hbm_peak_gib": None, "hbm_limit_gib": None}


@pytest.fixture
def profiler(monkeypatch):
    """What the profiler was told."""
    said = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: said.append(folder.name))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: said.append("stop"))
    return said


def test_each_unbroken_range_of_steps_is_one_trace(tmp_path, profiler, capsys):
    with Trace(tmp_path, (7, 3, 4, 10), total_steps=10) as trace:
        for number in range(1, 11):
            with trace.step(number):
                profiler.append(number)
    assert profiler == [
        *(1, 2, "steps_3_to_4", 3, 4, "stop", 5, 6, "step_7", 7, "stop", 8, 9, "step_10", 10, "stop"),
    ]
    out = capsys.readouterr().out
    assert f"trace of steps 3 to 4: {tmp_path / 'steps_3_to_4'}\n" in out and f"xprof --logdir {tmp_path}\n" in out


def test_a_run_that_ends_within_the_range_keeps_what_was_caught(tmp_path, profiler):
    with pytest.raises(KeyboardInterrupt), Trace(tmp_path, (2, 3, 4), total_steps=9) as trace:
        for number in (1, 2):
            with trace.step(number):
                pass
        raise KeyboardInterrupt
    assert profiler == ["steps_2_to_4", "stop"]


def test_a_run_that_goes_on_within_the_range_traces_the_rest(tmp_path, profiler):
    with Trace(tmp_path, (2, 3, 4), total_steps=9) as trace:
        for number in (4, 5):
            with trace.step(number):
                pass
    assert profiler == ["step_4", "stop"]


def test_a_step_that_never_comes_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"^log.profile_steps has 400; the last step is 315$"):
        Trace(tmp_path, (10, 400), total_steps=315)
