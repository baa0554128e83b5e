"""A records file survives a kill at any byte."""

import pytest

from s1_jax.config import UserError
from s1_jax.reporting.records import cut_torn_line, read_records, record_line


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


def test_a_broken_line_inside_is_named(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"n": 1}\n{"n": \n{"n": 3}\n')
    with pytest.raises(UserError, match=r"records\.jsonl, line 2"):
        read_records(path)
