"""A file is replaced whole: whatever goes wrong, its name holds the old contents or the new."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from s1_jax import train
from s1_jax.config import TrainConfig
from s1_jax.data import identity
from s1_jax.errors import UserError
from s1_jax.runtime import files
from s1_jax.runtime.files import appended, read_earlier, whole_file, write_whole
from s1_jax.runtime.storage import as_path, mirrored
from s1_jax.training.metrics import MetricsLog


def test_text_and_bytes_take_the_place_of_what_was_there(tmp_path):
    path = tmp_path / "x.json"
    for contents in ("a é\n", b"\xff\n", ""):
        write_whole(path, contents)
        assert path.read_bytes() == (contents if isinstance(contents, bytes) else contents.encode())
        assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "x.json"
    write_whole(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "open":
        monkeypatch.setattr(files.Path, "write_bytes", full)
    else:
        monkeypatch.setattr(files.os, call, full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_whole(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x.json"]


@contextmanager
def little_room():
    """Within the block files of this process hold at most 1,000 bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("flushed", [True, False])
def test_a_line_that_does_not_fit_is_an_error_with_the_files_name(tmp_path, flushed):
    path = tmp_path / "records.jsonl"
    path.write_text("é\n", encoding="utf-8")
    with little_room(), pytest.raises(OSError, match=f"File too large: '{path}'"), appended(path) as file:
        file.write("a" * 2000)
        if flushed:
            file.flush()
    assert path.read_bytes().startswith("é\na".encode())


def test_another_error_keeps_its_own_words(tmp_path):
    with pytest.raises(OSError, match="^no file's$"), appended(tmp_path / "records.jsonl"):
        raise OSError("no file's")


def test_a_row_of_metrics_that_does_not_fit_names_the_file(tmp_path):
    log = MetricsLog(tmp_path, 0)
    with little_room(), pytest.raises(OSError, match="metrics.jsonl"), log:
        log.write({"step": 1, "note": "a" * 2000})


def test_a_folder_that_is_not_there_or_in_the_way_is_named(tmp_path):
    (tmp_path / "x.json").mkdir()
    for path, kind in ((tmp_path / "no" / "x.json", FileNotFoundError), (tmp_path / "x.json", IsADirectoryError)):
        with pytest.raises(kind, match=f": '{path}'$"):
            write_whole(path, "new")


def test_what_is_written_is_on_disk_before_it_gets_the_name_and_the_name_after(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda one: (done.append(os.readlink(f"/proc/self/fd/{one}")), fsync(one)))
    monkeypatch.setattr(files.os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    write_whole(tmp_path / "x.json", "new")
    assert done[0].endswith(".partial") and done[1:] == ["replace", str(tmp_path)]


def test_two_writers_of_one_file_have_names_of_their_own(tmp_path):
    path = tmp_path / "x.json"
    with whole_file(path) as first, whole_file(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["x.json"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "x[1].json"
    killed = f"""
import os, signal
from pathlib import Path
from s1_jax.runtime.files import whole_file
with whole_file(Path({str(path)!r})) as beside:
    beside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    others = [".x[1].json.mine.partial", ".y.json." + 32 * "0" + ".partial", "x[1].json.partial"]
    for name in others:
        (tmp_path / name).write_text("mine")
    assert len(os.listdir(tmp_path)) == 4 and not path.exists()
    with whole_file(path) as beside:
        beside.write_text("whole")
        write_whole(path, "another's")
        assert beside.exists(), "a living writer's"
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, *others])


def test_a_link_stays_one_and_a_device_is_written_to(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "x.json"
    link.symlink_to(tmp_path / "disk" / "real.json")
    write_whole(link, "new")
    assert link.is_symlink() and (tmp_path / "disk" / "real.json").read_text() == "new"
    write_whole(as_path("/dev/null"), "nothing")
    assert not os.path.isfile("/dev/null")


def test_the_longest_name_there_can_be(tmp_path):
    path = tmp_path / ("é" * 120 + ".json")
    write_whole(path, "new")
    assert path.read_text() == "new"


def test_in_a_bucket(bucket):
    write_whole(as_path("gs://s1-test/run/x.json"), "é")
    assert bucket.names() == ["run/x.json"] and bucket.read("run/x.json") == "é".encode()


BROKEN = ("", "{", '{"model": {"pa', "[]", "\x00\x00", '{"a": 1, "a": 2}')


def test_half_a_config_of_an_earlier_start_binds_nothing_by_itself(tmp_path):
    path = tmp_path / "config.json"
    assert read_earlier(path, bound=True) is None
    for text in BROKEN:
        path.write_text(text)
        assert read_earlier(path, bound=False) is None
        said = f"^{path}: .*; restore it, or remove it: the same command then writes it again$"
        with pytest.raises(UserError, match=said):
            read_earlier(path, bound=True)


def test_training_starts_over_half_a_config_where_nothing_was_saved(tmp_path):
    """A full disk left it so, and the same command was an error ever after."""
    config = TrainConfig(run_dir=str(tmp_path))
    path = tmp_path / "config.json"
    with mirrored(tmp_path) as folder:
        for text in BROKEN:
            path.write_text(text)
            train.claim_run_dir(folder, config)
            assert json.loads(path.read_text())["run_dir"] == str(tmp_path)
        (tmp_path / "checkpoints" / "2").mkdir(parents=True)
        path.write_text(BROKEN[1])
        with pytest.raises(UserError, match="config.json: not JSON .*remove it: the same command then writes it again"):
            train.claim_run_dir(folder, config)
        path.write_text('{"model": "tiny"}')
        with pytest.raises(UserError, match="config.json: model is 'tiny'; it must be an object"):
            train.claim_run_dir(folder, config)
        path.unlink()
        train.claim_run_dir(folder, config)


def test_what_the_export_would_refuse_is_said_before_training(tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="hf exists and is not a checkpoint; name another folder"):
        train.main(["--run-dir", str(tmp_path), "--model.path", str(tmp_path / "nowhere")])
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_an_identity_that_was_cut_off_names_no_difference_and_is_no_error(tmp_path):
    for text in (*BROKEN, '{"digest": "00", "training": 3, "held_out": null}'):
        (tmp_path / identity.FILE).write_text(text)
        with pytest.raises(UserError, match="other examples: which of them differ is unknown; restore"):
            identity.check_same("00", identity.Identity("11", "", ""), tmp_path, ((), ()), tmp_path)
