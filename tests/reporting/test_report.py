"""What a report leaves in a run folder and prints, from records alone, and where a part of it cannot be made."""

import json

import pytest

from s1_jax.errors import UserError
from s1_jax.reporting import report as module
from s1_jax.reporting.report import report
from s1_jax.runtime.storage import mirrored
from tests.reporting.made_up import searched, spoken_sweep, undecided, write_run

DRAWN = {"save_scaling_plot": "scaling.png", "save_methods_plot": "methods.png", "save_report": "report.html"}


def reported(folder):
    with mirrored(folder) as mirror:
        report(mirror)


def test_files_and_lines_of_a_report(tmp_path, capsys):
    folder = write_run(tmp_path / "run", undecided(spoken_sweep(), 0))
    reported(folder)
    assert json.loads((folder / "summary.json").read_text())["records"] == len(spoken_sweep())
    said = capsys.readouterr()
    assert "Control" in said.out and not said.err
    assert f"plot: {folder / 'scaling.png'}" in said.out and f"report: {folder / 'report.html'}" in said.out
    assert f"python -m s1_jax.grade {folder} --judge.model" in said.out
    assert not (folder / "methods.png").exists(), "there is no search"
    summary = (folder / "summary.json").read_bytes()
    reported(folder)
    assert (folder / "summary.json").read_bytes() == summary


def test_without_records_there_is_no_report(tmp_path):
    folder = write_run(tmp_path / "run", spoken_sweep())
    (folder / "records.jsonl").unlink()
    with pytest.raises(UserError, match="contains no records"):
        reported(folder)


def test_a_report_that_cannot_be_written_leaves_everything_else(tmp_path, capsys):
    folder = write_run(tmp_path / "run", spoken_sweep())
    (folder / "report.html").mkdir()  # in the way
    with pytest.raises(OSError):
        reported(folder)
    assert (folder / "summary.json").exists() and "Control" in capsys.readouterr().out


@pytest.mark.parametrize("fails", DRAWN)
def test_what_cannot_be_drawn_is_told_and_the_rest_is_there(tmp_path, monkeypatch, capsys, fails):
    def fail(*_):
        raise ValueError("no such sign\nand more")

    monkeypatch.setattr(module, fails, fail)
    folder = write_run(tmp_path / "run", [searched(i, True, 4) for i in range(3)])
    reported(folder)
    said = capsys.readouterr()
    assert (
        said.err
        == f"{DRAWN[fails]} could not be drawn (ValueError: no such sign and more); everything else was written\n"
    )
    assert {path.name for path in folder.iterdir()} & set(DRAWN.values()) == set(DRAWN.values()) - {DRAWN[fails]}
    assert (folder / "summary.json").exists() and str(folder / DRAWN[fails]) not in said.out
