"""Places in a bucket, against a stand-in for Google Cloud Storage."""

from __future__ import annotations

import importlib.util
import os
import time

import pytest

from s1_jax.errors import RunError, UserError
from s1_jax.runtime import storage
from s1_jax.runtime.storage import as_path, explained, in_bucket, mirrored, read_ranges, remove_folder, size_of
from tests.runs import PATIENCE

PLACE = "gs://s1-test/run"


def test_a_path_is_here_or_in_a_bucket(tmp_path, monkeypatch, bucket):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_path("~/x") == tmp_path / "x" and not in_bucket(as_path("runs/x"))
    path = as_path(f"{PLACE}/a/../b.json")
    assert in_bucket(path / "c") and str(as_path(PLACE) / "hf") == f"{PLACE}/hf" and path.suffix == ".json"
    for url in ("s3://x/y", "https://x/y", "gs://", "gs:///x"):
        with pytest.raises(UserError, match=f"{url}: the only URLs that can be paths are gs://BUCKET/FOLDER"):
            as_path(url)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="buckets need gcsfs, the extra gcs of this project: pip install"):
        as_path(PLACE)


def test_reads_what_is_there_now(bucket):
    """Other processes write too: no listing is kept, and bytes are read where they are asked for."""
    folder = as_path(PLACE)
    assert not folder.exists()
    data = os.urandom(100_000)
    bucket.put("run/one", data)
    assert [path.name for path in folder.iterdir()] == ["one"] and size_of(folder / "one") == len(data)
    bucket.put("run/two", b"2")
    assert sorted(path.name for path in folder.iterdir()) == ["one", "two"]
    ranges = [(0, 10), (90_000, 100_000), (5, 6)]
    before = bucket.served
    assert read_ranges(folder / "one", ranges) == [data[begin:end] for begin, end in ranges]
    assert bucket.served - before == sum(end - begin for begin, end in ranges)
    remove_folder(folder)
    remove_folder(folder)
    assert not bucket.names()


def test_reads_ranges_of_a_local_file(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    assert read_ranges(tmp_path / "x", [(2, 4), (0, 1)]) == [b"23", b"0"] and size_of(tmp_path / "x") == 10


def test_a_local_folder_is_its_own_mirror(tmp_path):
    with mirrored(tmp_path / "run") as folder:
        assert folder.local == folder.place == tmp_path / "run"
        folder.fetch()
        folder.keep()
    assert not (tmp_path / "run").exists()


def test_copies_follow_what_is_appended(bucket, monkeypatch):
    monkeypatch.setattr(storage, "COPY_SECONDS", 0.02)
    bucket.put("run/records.jsonl", b"1\n")
    bucket.put("run/checkpoints/5/data", b"large")
    with mirrored(PLACE) as folder:
        path = folder.local / "records.jsonl"
        assert [child.name for child in folder.local.iterdir()] == ["records.jsonl"] and path.read_text() == "1\n"
        with path.open("a") as file:
            for line in ("2\n", "3\n"):
                file.write(line)
                file.flush()
                waiting_since = time.monotonic()
                while not bucket.read("run/records.jsonl").decode().endswith(line):
                    assert time.monotonic() - waiting_since < PATIENCE
                    time.sleep(0.01)
            file.write("4\n")
        (folder.local / "tensorboard").mkdir()
        (folder.local / "tensorboard" / "events").write_text("x")
        assert str(folder.shown(path)) == f"{PLACE}/records.jsonl" and folder.local.name == folder.place.name == "run"
    assert bucket.read("run/records.jsonl") == b"1\n2\n3\n4\n" and bucket.read("run/tensorboard/events") == b"x"
    assert not folder.local.parent.exists()


def test_what_has_not_changed_is_not_copied_again(bucket):
    bucket.put("run/a", b"a")
    with mirrored(PLACE) as folder:
        (folder.local / "b").write_text("b")
        folder.keep()
        generations = {name: bucket.objects[name].generation for name in bucket.names()}
    assert {name: bucket.objects[name].generation for name in bucket.names()} == generations


def test_removals_go_both_ways(bucket):
    for name in ("records.jsonl", "records-1.jsonl"):
        bucket.put(f"run/{name}", name.encode())
    with mirrored(PLACE) as other, mirrored(PLACE) as first:
        (first.local / "records-1.jsonl").unlink()
        first.keep()
        assert bucket.names() == ["run/records.jsonl"]
        other.fetch()
        assert [path.name for path in other.local.iterdir()] == ["records.jsonl"]


def test_brings_only_what_is_asked_for(bucket):
    for name in ("out.jsonl", "other.jsonl"):
        bucket.put(f"run/{name}", b"x")
    with mirrored(PLACE, "out.jsonl") as folder:
        assert [path.name for path in folder.local.iterdir()] == ["out.jsonl"]
    assert bucket.names() == ["run/other.jsonl", "run/out.jsonl"]


def test_an_error_inside_loses_nothing(bucket):
    with pytest.raises(KeyboardInterrupt), mirrored(PLACE) as folder:
        (folder.local / "records.jsonl").write_text("1\n")
        raise KeyboardInterrupt
    assert bucket.read("run/records.jsonl") == b"1\n"


def test_a_bucket_that_may_not_be_read_is_an_error_of_the_users(bucket):
    bucket.fault = lambda method, path: 403
    with pytest.raises(UserError, match="gs://s1-test/run cannot be read: Forbidden"), mirrored(PLACE):
        raise AssertionError("not reached")


def test_a_bucket_that_may_not_be_written_leaves_the_files_here(bucket, monkeypatch):
    monkeypatch.setattr(storage, "COPY_SECONDS", 0.02)
    bucket.fault = lambda method, path: 403 if "/upload/" in path else None
    with (
        pytest.raises(RunError, match="cannot be written .*; its files are in") as raised,
        pytest.warns(UserWarning, match="cannot be written now .*; retrying") as warned,
        mirrored(PLACE) as folder,
    ):
        (folder.local / "records.jsonl").write_text("1\n")
        until = time.monotonic() + PATIENCE
        while not warned and time.monotonic() < until:
            time.sleep(0.01)
    assert str(folder.local) in str(raised.value) and (folder.local / "records.jsonl").read_text() == "1\n"


def test_a_bucket_that_is_not_there_is_told_with_what_it_was(bucket):
    said = "gs://nowhere/run cannot be written .not found: .*/b/nowhere/.*; its files are in"
    with pytest.raises(RunError, match=said), mirrored("gs://nowhere/run") as folder:
        (folder.local / "records.jsonl").write_text("1\n")


def test_a_short_outage_is_waited_for(bucket):
    refused = []

    def fault(method, path):
        if "/upload/" in path and not refused:
            refused.append(path)
            return 503
        return None

    bucket.fault = fault
    with mirrored(PLACE) as folder:
        (folder.local / "a").write_text("a")
    assert refused and bucket.read("run/a") == b"a"


def test_errors_of_the_client_are_told_in_a_line():
    from gcsfs.retry import HttpError

    said = explained(HttpError({"code": 401, "message": "Anonymous caller\nand more"}))
    assert said == "the bucket cannot be reached: Anonymous caller and more, 401"
    assert explained(ValueError("ours")) is None
