"""Two runs on one output: the second says who has it, in every command; a killed one binds nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from s1_jax import convert, curate, evaluate, generate, grade, train
from s1_jax.errors import UserError
from s1_jax.runtime import locks
from s1_jax.runtime.locks import LOCK, locked_file, locked_folder
from s1_jax.runtime.storage import as_path
from tests.runs import SWEEP, Team

HOLD = """
import sys, time
from pathlib import Path
from s1_jax.runtime.locks import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder tmp_path/run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_who_has_it_and_a_killed_one_binds_nobody(tmp_path, holder):
    folder = tmp_path / "run"
    said = rf"{folder} is being written by another run \(process {holder.pid} on \S+: -c, since 2\S+ \S+\); wait for"
    with pytest.raises(UserError, match=said), locked_folder(folder):
        raise AssertionError("not reached")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (folder / LOCK).exists(), "a kill leaves the file"
    with locked_folder(folder):
        assert f"process {os.getpid()} " in (folder / LOCK).read_text()
    assert list(folder.iterdir()) == []


def test_a_lock_leaves_what_is_there_and_what_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    with locked_folder(tmp_path / "there"):
        pass
    with locked_folder(tmp_path / "made for it" / "run"):
        assert (tmp_path / "made for it" / "run" / LOCK).exists()
    with locked_folder(tmp_path / "new" / "run"):
        (tmp_path / "new" / "run" / "x").write_text("x")
    with locked_file(tmp_path / "other" / "target"):
        (tmp_path / "other" / "target").mkdir()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["new", "new/run", "new/run/x", "other", "other/target", "there"]


def test_a_lock_is_no_place_to_write_into_other_files(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "mine")
    with locked_folder(tmp_path / "run"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("fault", ["no locks", "full disk", "removed meanwhile"])
def test_what_may_be_in_the_way_of_a_lock(tmp_path, monkeypatch, fault):
    flock, write, seen = locks.fcntl.flock, os.write, []

    def refuse(*_):
        raise OSError("cannot")

    def remove(*arguments):
        flock(*arguments)
        if not seen:
            seen.append((tmp_path / LOCK).unlink())

    if fault == "full disk":
        monkeypatch.setattr(locks.os, "write", refuse)
    else:
        monkeypatch.setattr(locks.fcntl, "flock", refuse if fault == "no locks" else remove)
    with locked_folder(tmp_path):
        monkeypatch.undo()
        assert os.write is write
        if fault == "no locks":
            return
        with pytest.raises(UserError, match="is being written by another run"), locked_folder(tmp_path):
            raise AssertionError("not reached")


def test_a_file_is_locked_under_every_name_it_has(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "other.jsonl").symlink_to(tmp_path / "out.jsonl")
    monkeypatch.chdir(tmp_path)
    with locked_file(tmp_path / "out.jsonl"):
        for name in ("out.jsonl", "./link/../" + tmp_path.name + "/out.jsonl", "link/out.jsonl", "other.jsonl"):
            with pytest.raises(UserError, match="is being written by another run"), locked_file(as_path(name)):
                raise AssertionError("not reached")


def test_a_file_of_records_is_locked_with_the_folder_of_its_sweep(tmp_path):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "run" / "records.jsonl")
    records = tmp_path / "run" / "records.jsonl"
    with locked_folder(tmp_path / "run"):
        for path in (records, tmp_path / "link.jsonl"):
            with pytest.raises(UserError, match=f"{path} is being written by another run"), locked_file(path):
                raise AssertionError("not reached")
        with locked_file(tmp_path / "run" / "other.jsonl"):
            pass
    with locked_file(records), pytest.raises(UserError, match="is being written"), locked_folder(tmp_path / "run"):
        raise AssertionError("not reached")


def test_a_bucket_has_no_locks(bucket):
    place = as_path("gs://s1-test/run")
    with locked_folder(place), locked_folder(place), locked_file(place / "x"):
        assert not bucket.names()


def run_dir(tmp_path):
    """Of a sweep that could be reported and graded."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "records.jsonl").write_text("")
    return tmp_path / "run"


COMMANDS = {
    "evaluate": (evaluate, "run", lambda path: [*SWEEP, "--run-dir", path]),
    "report": (evaluate, "run", lambda path: [path]),
    "grade": (grade, "run", lambda path: [path]),
    "train": (train, "run", lambda path: ["--run-dir", path]),
    "curate": (curate, "run", lambda path: ["--run-dir", path, "--collect.sources", "synthetic"]),
    "generate": (generate, "out", lambda path: ["--model.path", "nowhere", "--input", "in.jsonl", "--output", path]),
    "generate beside evaluate": (
        generate,
        "run/records.jsonl",
        lambda path: ["--model.path", "nowhere", "--input", "in.jsonl", "--output", path],
    ),
    "convert": (convert, "out", lambda path: ["--source", "nowhere", "--target", path]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_refused_before_it_does_anything(tmp_path, command):
    """All that write into a run's folder hold the same lock, so `grade` is refused beside `evaluate`."""
    module, name, arguments = COMMANDS[command]
    folder = run_dir(tmp_path) if name.startswith("run") else tmp_path
    path = tmp_path / name
    with locked_file(path) if name == "out" else locked_folder(folder):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError, match=f"^{path} is being written by another run .process {os.getpid()} on"):
            module.main(arguments(str(path)))
        assert sorted(tmp_path.rglob("*")) == before


def test_the_line_and_the_code_of_the_second(tmp_path, holder):
    (tmp_path / "run" / "records.jsonl").write_text("")
    command = [sys.executable, "-m", "s1_jax.grade", tmp_path / "run"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"error: {tmp_path / 'run'} is being written by another run (process {holder.pid}")


@pytest.mark.slow
def test_processes_of_one_run_do_not_lock_each_other_out_and_are_all_refused_beside_another(tmp_path, holder):
    arguments = [*SWEEP, "--task.limit", "2", "--run-dir", str(tmp_path / "run")]
    codes, _, said = Team(2, arguments, evaluate).ends()
    assert codes == [2, 2] and all(f"(process {holder.pid} on " in lines for lines in said), said
    holder.kill()
    holder.wait()
    codes, _, said = Team(2, arguments, evaluate).ends()
    assert codes == [0, 0], said
