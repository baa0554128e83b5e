"""Where a run's numbers go: the file, TensorBoard, and W&B played by a stand-in."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from types import ModuleType

import pytest
from tensorboardX.proto.event_pb2 import Event

from s1_jax.errors import UserError
from s1_jax.runtime.cli import say_of_thread
from s1_jax.training.metrics import MetricsLog, find_wandb, start_wandb
from tests.runs import PATIENCE


class WandbRun:
    """What this project uses of a W&B run."""

    def __init__(self, **given):
        self.given, self.rows, self.step_metrics, self.exit_code = given, [], {}, None

    def define_metric(self, name, step_metric):
        self.step_metrics[name] = step_metric

    def log(self, row):
        self.rows.append(row)

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def wandb_runs(monkeypatch):
    """W&B as if installed; the runs started."""
    runs, module = [], ModuleType("wandb")
    module.init = lambda **given: runs.append(WandbRun(**given)) or runs[-1]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rows_after_the_step_of_the_checkpoint_are_dropped_and_written_again(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write({"step": step, "loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed within a line
    with MetricsLog(tmp_path, 2) as log:
        log.write({"step": 3, "loss": 2.0})
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [(1, 1.0), (2, 1.0), (3, 2.0)]


def test_what_is_unknown_is_null_in_the_file_and_left_out_elsewhere(tmp_path, wandb_runs):
    with MetricsLog(tmp_path, 0, start_wandb("s1", tmp_path, {})) as log:
        log.write({"step": 1, "loss": 1.5, "mfu": None})
    assert rows(tmp_path) == [{"step": 1, "loss": 1.5, "mfu": None}]
    assert wandb_runs[0].rows == [{"step": 1, "loss": 1.5}]
    tags = [value.tag for event in tensorboard_events(tmp_path) for value in event.summary.value]
    assert tags == ["loss"]


def tensorboard_events(folder):
    """TFRecord: length (8 bytes), its check (4), an Event, its check (4)."""
    (path,) = (folder / "tensorboard").iterdir()
    data, events = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_a_resumed_run_is_the_same_run_on_wandb(tmp_path, wandb_runs, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = {"optim": {"peak_lr": 1e-3}}
    for step in (0, 1):
        run_dir = tmp_path / "first"
        run_dir.mkdir(exist_ok=True)
        with MetricsLog(run_dir, step, start_wandb("s1", run_dir, config)) as log:
            log.write({"step": step + 1, "loss": 1.0})
    (tmp_path / "second").mkdir()
    start_wandb("s1", tmp_path / "second", config)
    first, resumed, other = (run.given for run in wandb_runs)
    assert first == resumed and first["id"] != other["id"] and first["resume"] == "allow"
    assert (first["project"], first["name"], first["config"]) == ("s1", "first", config)
    assert "mode" not in first  # WANDB_MODE decides
    # steps, not W&B's own count of rows: those after the last checkpoint come twice
    assert all(run.step_metrics == {"*": "step"} for run in wandb_runs)


def test_wandb_hears_whether_the_run_ended_well(tmp_path, wandb_runs):
    with MetricsLog(tmp_path, 0, start_wandb("s1", tmp_path, {})):
        pass
    with pytest.raises(KeyboardInterrupt), MetricsLog(tmp_path, 0, start_wandb("s1", tmp_path, {})):
        raise KeyboardInterrupt
    assert [run.exit_code for run in wandb_runs] == [0, 1]


def test_without_wandb_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="^log.wandb_project needs Weights & Biases: pip install wandb$"):
        find_wandb()


def test_a_folder_that_wandb_left_behind_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match="pip install wandb"):
        find_wandb()


def test_wandb_that_does_not_start_is_one_line(tmp_path, monkeypatch, wandb_runs):
    def init(**given):
        raise RuntimeError("no API key\nconfigured")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(UserError, match=r"^W&B did not start \(no API key configured\); .*WANDB_MODE=offline$"):
        start_wandb("s1", tmp_path, {})


def test_a_full_disk_behind_tensorboard_is_one_line_and_no_hang(tmp_path, monkeypatch, capsys):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(threading, "excepthook", say_of_thread)  # as `run_main` has it
    with MetricsLog(tmp_path, -1) as log:
        log._board.file_writer.event_writer._ev_writer.write_event = full
        for step in range(50):
            log.write({"step": step, "loss": 1.0})
            if not step:
                log._board_thread.join(PATIENCE)
    assert not log._board_thread.is_alive()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 50
    assert capsys.readouterr().err == "warning: in a background thread: No space left on device\n"


def test_a_thread_that_fails_for_another_reason_keeps_its_traceback(monkeypatch, capsys):
    monkeypatch.setattr(threading, "excepthook", say_of_thread)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert "ZeroDivisionError" in capsys.readouterr().err
