"""The fuzz script: the same seed makes the same inputs, and what it calls wrong is wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import fuzz_inputs
import pytest
from fuzz.cases import CONFIGS, KINDS, Maker
from fuzz.running import Result, mistake

from tests.runs import BASE, PATIENCE, PROJECT


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Files as `make_base` leaves them, without a run of any command."""
    folder = tmp_path_factory.mktemp("fuzz") / "base"
    for name in ("model", "headless"):
        shutil.copytree(BASE, folder / name)
    (folder / "trained" / "checkpoints").mkdir(parents=True)
    (folder / "trained" / "config.json").write_text('{"a": [1, 2]}')
    (folder / "curated").mkdir()
    (folder / "curated" / "answers.jsonl").write_text('{"a": [1, 2]}\n')
    for name in ("problems.parquet", "problems.csv", "reply.bin"):
        (folder / name).write_bytes(b"a,b\n1,2\n")
    (folder / "out.jsonl").write_text('{"a": 1}\n')
    for name in ("run", "other", "paper"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text('{"task": {"name": "jsonl"}}')
        (folder / name / "records.jsonl").write_text('{"task": "jsonl", "problem_id": 1}\n')
    for name in ("examples", "prompts", "problems"):
        (folder / f"{name}.jsonl").write_text('{"id": 1, "question": "1 + 1 =", "answer": "2"}\n')
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_seed_makes_the_same_inputs_and_leaves_the_valid_ones_alone(base, tmp_path):
    before, kinds, commands = contents(base), set(), set()
    for number in range(120):
        made = []
        for name in ("a", "b"):
            case = Maker(base, tmp_path / name / str(number), 7, number).make()
            made.append((case, contents(tmp_path / name / str(number))))
        assert made[0] == made[1]
        kinds.add(case.kind)
        commands.add(case.command)
        shutil.rmtree(tmp_path)
    assert contents(base) == before
    assert commands == set(CONFIGS) and len(kinds) == len(KINDS)


@pytest.mark.parametrize(
    ("code", "out", "err", "why"),
    [
        (0, "fine\n", "", None),
        (2, "", "error: no folder x\n", None),
        (1, "", "warning: y\nerror: no space left\n", None),
        (75, "", "received SIGTERM\n", None),
        (130, "", "interrupted\n", None),
        (3, "", "error: x\n", "exit code 3"),
        (-9, "", "", "exit code -9"),
        (2, "", "", "exit code 2 with 0 lines of error"),
        (1, "", "error: a\nerror: b\n", "exit code 1 with 2 lines of error"),
        (2, "", "error: a\nsecond line\n", "the error is not the last line"),
        (0, "", "error: a\n", "exit code 0 with an error"),
        (1, "", "Traceback (most recent call last):\nKeyError: 'a'\n", "a traceback: KeyError: 'a'"),
        (0, "\x1b[2J", "", "terminal control characters"),
        (2, "", "error: \r\n", "terminal control characters"),
    ],
)
def test_how_a_command_may_end(code, out, err, why):
    assert mistake(code, out, err) == why


def test_an_input_that_fails_can_be_run_again(base, tmp_path, monkeypatch, capsys):
    number = next(n for n in range(100) if Maker(base, tmp_path / str(n), 0, n).make().kind == "replies")
    fuzz_inputs.keep(base, tmp_path / "kept", 0, number, Result(1, "", "", 1.0, "a traceback"))
    about = json.loads((tmp_path / "kept" / "case.json").read_text())
    assert about["why"] == "a traceback" and about["number"] == number and (tmp_path / "kept" / "reply.bin").exists()
    assert not [path for path in (tmp_path / "kept").rglob("*") if path.is_symlink()]
    ran = []

    def run_alone(folder, case):
        ran.append((case, sorted(contents(folder))))
        return Result(2, "", "error: no\n", 1.0, None)

    monkeypatch.setattr(fuzz_inputs, "run_alone", run_alone)
    assert fuzz_inputs.again([str(tmp_path / "kept" / "case.json")]) == 0
    assert ran[0][0].argv == about["argv"] and "reply.bin" in ran[0][1]
    assert "exit code 2: as expected" in capsys.readouterr().out


@pytest.mark.slow
def test_some_inputs(tmp_path):
    script = [sys.executable, str(PROJECT / "scripts" / "fuzz_inputs.py"), "--inputs", "40", "--seed", "1"]
    done = subprocess.run(
        [*script, "--failures", str(Path(tmp_path) / "failures")], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 inputs in" in done.stdout and not (tmp_path / "failures").exists()
