"""A records file survives a kill at any byte."""

import pytest

from s1_jax.errors import UserError
from s1_jax.records.lines import cut_torn_line, gather_parts, part_of, read_records, record_line

OF_PEOPLE = (  # files beside records.jsonl that no process of a run has made
    *("{}-of-mine.jsonl", "{}-2025-01-01.jsonl", "{}-1.jsonl", "{}-12.jsonl", "{}-20250101.jsonl", "{}.1.jsonl"),
    *("{}.jsonl.1", "{}.process-0.jsonl", "{}.process-01.jsonl", "{}.process-1.jsonl.bak", "{}.process-1-old.jsonl"),
    *("my {}.process-1.jsonl", "{}.process-.jsonl", "{}.process-1\n.jsonl", "{}xprocess-1.jsonl", "old-{}.jsonl"),
)


def test_no_file_is_no_records(tmp_path):
    assert read_records(tmp_path / "none.jsonl") == []
    cut_torn_line(tmp_path / "none.jsonl")


def test_cut_at_every_byte(tmp_path):
    records = [{"text": "tr\u00e8s\n\u2028 bien", "n": 1}, {"text": "\U0001f600", "n": 2}, {"n": 3}]
    lines = [record_line(record).encode() for record in records]
    path = tmp_path / "records.jsonl"
    whole = b"".join(lines)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = read_records(path)
        assert kept == records[: len(kept)]
        cut_torn_line(path)
        with path.open("ab") as file:
            file.write(b"".join(lines[len(kept) :]))
        assert path.read_bytes() == whole


def test_a_last_line_that_lacks_its_newline_alone_is_a_record(tmp_path):
    """Editors leave files so; the record was left out of reports and decoded again."""
    path = tmp_path / "records.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}')
    assert read_records(path) == [{"n": 1}, {"n": 2}]
    cut_torn_line(path)
    assert path.read_text() == '{"n": 1}\n{"n": 2}\n'
    path.write_text('{"n": 1}\n{"n": 2')
    assert read_records(path) == [{"n": 1}]
    part_of(path, 1).write_text('{"n": 3}')
    gather_parts(path)
    assert path.read_text() == '{"n": 1}\n{"n": 3}\n'


def test_a_broken_line_inside_is_named(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"n": 1}\n{"n": \n{"n": 3}\n')
    with pytest.raises(UserError, match=r"records\.jsonl, line 2"):
        read_records(path)


def test_what_processes_wrote_is_put_together_once(tmp_path):
    """As after a kill: the second's file ends in half a line, and one record is in both."""
    path = tmp_path / "records.jsonl"
    lines = [record_line({"problem_id": i}) for i in range(6)]
    path.write_text("".join(lines[:3]))
    part_of(path, 1).write_text("".join(lines[2:5]) + lines[5][:9])
    part_of(path, 12).write_text(lines[5])
    mine = [name.format("records") for name in OF_PEOPLE]
    for name in mine:
        (tmp_path / name).write_text("kept\n")
    (tmp_path / "records.process-3.jsonl").mkdir()
    gather_parts(path)
    assert sorted(record["problem_id"] for record in read_records(path)) == list(range(6))
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == sorted([*mine, "records.jsonl", "records.process-3.jsonl"])
    assert all((tmp_path / name).read_text() == "kept\n" for name in mine)
    before = path.read_bytes()
    gather_parts(path)
    assert path.read_bytes() == before and part_of(path, 0) == path
