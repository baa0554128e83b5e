"""The quickstart, cut to the size of a test: what it leaves, where, and that it resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import jax
import pytest

from s1_jax import quickstart
from s1_jax.errors import UserError
from s1_jax.records.lines import read_records
from tests.runs import MAIN, PATIENCE, PROJECT, gate, rows, wait_for_step

SMALL = ("--epochs", "1", "--problems", "6", "--until", "sweep")  # scripts/check_wheel.sh runs the comparison too


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a quickstart that was started outside the clone."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        quickstart.main(list(SMALL))
    return elsewhere / "runs" / "quickstart"


def test_it_leaves_examples_model_records_plot_table_and_report(finished):
    assert len((finished / "examples.jsonl").read_text().splitlines()) == 1000
    assert rows(finished / "sft")[-1]["step"] == 63  # 1,000 examples, 16 a step
    assert (finished / "sft" / "hf" / "model.safetensors").is_file()
    records = read_records(finished / "sweep" / "records.jsonl")
    assert len({record["problem_id"] for record in records}) == 6
    assert {record["max_thinking_tokens"] for record in records} == {16, 32, 64, 96, 128, 160, None}
    assert json.loads((finished / "sweep" / "summary.json").read_text())["tasks"] == ["synthetic"]
    for name in ("scaling.png", "report.html"):
        assert (finished / "sweep" / name).stat().st_size > 1000


def test_again_it_makes_nothing_anew_and_says_where_things_are(finished, capfd, monkeypatch):
    monkeypatch.chdir(finished.parents[1])
    kept = {path: path.read_bytes() for path in finished.rglob("*.jsonl")}
    quickstart.main([*SMALL, "--run-dir", "runs/quickstart"])
    said = capfd.readouterr()
    assert {path: path.read_bytes() for path in finished.rglob("*.jsonl")} == kept
    assert "done: runs/quickstart/sweep contains the plot (scaling.png), the table (summary.json)" in said.out
    assert [line[:6] for line in said.err.splitlines() if line.startswith("Step")] == ["Step 1", "Step 2"]
    assert "runs/quickstart/sft is finished" in said.out


def test_until_ends_it_after_a_step(tmp_path, capsys):
    quickstart.main(["--run-dir", str(tmp_path / "q"), "--until", "examples"])
    assert [path.name for path in (tmp_path / "q").iterdir()] == ["examples.jsonl"]
    assert "Step" not in capsys.readouterr().err
    with pytest.raises(UserError, match="--until trian: it must be examples or train or sweep or compare"):
        quickstart.main(["--until", "trian"])


@pytest.mark.slow
def test_stopped_it_resumes_where_it_was(tmp_path, finished):
    arguments, run = ["--epochs", "1", "--until", "train", "--run-dir", str(tmp_path / "q")], tmp_path / "q" / "sft"
    go = tmp_path / "go"
    code = gate("s1_jax.training.metrics:MetricsLog.write", 2, go) + MAIN.format("s1_jax.quickstart")
    devices = os.environ | {"JAX_NUM_CPU_DEVICES": str(jax.device_count())}  # as here, or sums have another order
    pipes = dict(cwd=PROJECT, env=devices, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", code, *arguments], **pipes) as process:
        try:
            wait_for_step(process, run, 2)
            process.send_signal(signal.SIGTERM)
            go.touch()
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 75 and "Run the same command to resume." in err
    before = rows(run)
    assert before[-1]["step"] == 2
    quickstart.main(arguments)
    after = rows(run)
    assert after[: len(before)] == before
    assert [row["loss"] for row in after] == [row["loss"] for row in rows(finished / "sft")]
