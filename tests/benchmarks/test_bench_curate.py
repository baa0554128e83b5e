"""The bench of curation: its stages run on rows that each of them finds something in, and figures are written down."""

import json
import sys

import bench_curate
import pytest

ROWS = 480


@pytest.mark.slow
def test_figures(monkeypatch, tmp_path, capsys):
    target = tmp_path / "bench" / "curate.json"
    arguments = ["--rows", str(ROWS), "--stages", "decontaminate", "filter", "select", "--json", str(target)]
    monkeypatch.setattr(sys, "argv", ["bench_curate.py", *arguments])
    bench_curate.main()
    written = json.loads(target.read_text())
    assert [one["rows"] for one in written["small"]] == [ROWS // 4] * 3
    left = [one["left"] for one in written["full"]]
    assert ROWS > left[0] > left[1] > left[2] == 10
    seconds = sum(one["seconds"] for one in written["full"])
    assert written["seconds"] == pytest.approx(seconds * bench_curate.ROWS / ROWS)
    assert written["met"]["memory"] and "measure" not in written["met"]
    assert f"{bench_curate.ROWS:,} questions" in capsys.readouterr().out
