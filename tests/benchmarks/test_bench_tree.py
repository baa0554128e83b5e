"""The bench of trees: both ways decode what they should, and the figures are written down."""

import json
import sys

import bench_tree
import pytest


@pytest.mark.slow
def test_figures(monkeypatch, tmp_path, capsys):
    target = tmp_path / "bench" / "tree.json"
    sizes = ["--problems", "2", "--width", "3", "--batch-size", "4", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_tree.py", *sizes, "--json", str(target)])
    bench_tree.main()
    shown, written = capsys.readouterr().out, json.loads(target.read_text())
    plain, rebase = (written["tokens_per_second"][way] for way in ("plain sampling", "REBASE"))
    assert len(plain) == len(rebase) == 1 and written["share"] == pytest.approx(rebase[0] / plain[0])
    assert written["met"] == (written["share"] >= bench_tree.LEAST)
    rows = {line.rsplit(maxsplit=5)[0].strip(): line.split()[-5:] for line in shown.splitlines()[2:4]}
    assert rows["plain sampling"][0] == "6" and int(rows["REBASE"][0]) > 6  # runs, and steps of 6 runs
