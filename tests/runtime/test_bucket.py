"""Every command with `gs://` in place of each path, against a stand-in for Google Cloud Storage."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from s1_jax import convert, evaluate, generate, grade, train
from s1_jax.data.sources import read_rows
from s1_jax.errors import UserError
from s1_jax.evaluation import decode
from tests.runs import BASE, MESH, PATIENCE, PROJECT, SWEEP, Team, assert_same_run, gate, options, records_by_key

ROOT = "gs://s1-test"
RECORDS = 24  # of SWEEP


def put_folder(bucket, folder, name: str) -> str:
    for path in Path(folder).iterdir():
        bucket.put(f"{name}/{path.name}", path.read_bytes())
    return f"{ROOT}/{name}"


def get_folder(bucket, name: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for found in bucket.names(f"{name}/"):
        if "/" not in (inside := found.removeprefix(f"{name}/")):
            (folder / inside).write_bytes(bucket.read(found))
    return folder


@pytest.fixture
def model(bucket) -> str:
    return put_folder(bucket, BASE, "model")


@pytest.mark.slow
def test_fine_tuning_of_two_processes_is_killed_and_goes_on(start, tmp_path, bucket, alone):
    """Model, examples, run folder: nothing of the run is on a disk that its processes share."""
    bucket.put("data/examples.jsonl", (start / "examples.jsonl").read_bytes())
    there = ["--model.path", put_folder(bucket, start / "model", "model"), "--data.path", f"{ROOT}/data/examples.jsonl"]
    arguments = options(start, f"{ROOT}/run", *MESH, *there, "--hosts.lost-after-seconds", "10")
    team = Team(2, arguments, first={0: gate("s1_jax.training.metrics:MetricsLog.write", 4, tmp_path / "go")})
    deadline = time.time() + PATIENCE
    while not bucket.names("run/checkpoints/2/commit_success.txt"):
        assert time.time() < deadline and all(member.poll() is None for member in team.members), team.ends()
        time.sleep(0.02)
    for member in team.members:
        member.kill()
    team.ends()
    assert not bucket.names("run/hf/")

    codes, outputs, errors = Team(2, arguments).ends()
    assert codes == [0, 0] and "resuming from step" in outputs[0], errors
    assert f"the model is in {ROOT}/run/hf" in outputs[0]
    get_folder(bucket, "run/hf", get_folder(bucket, "run", tmp_path / "run") / "hf")
    assert_same_run(tmp_path / "run", alone)
    assert bucket.names("run/tensorboard/") and bucket.names("run/config.json")
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "hf")


def test_a_finished_run_says_so_and_other_options_are_refused(start, bucket, capsys):
    put_folder(bucket, start / "model", "run/hf")
    train.main(options(start, f"{ROOT}/run"))
    assert capsys.readouterr().out == f"{ROOT}/run is finished: the model is in {ROOT}/run/hf\n"
    with pytest.raises(UserError, match=rf"{ROOT}/run contains a run with other options \(train.epochs was 2, is 3\)"):
        train.main(options(start, f"{ROOT}/run", "--train.epochs", "3"))


@pytest.mark.slow
def test_a_sweep_of_two_processes_gives_the_records_of_one(tmp_path, bucket, model, sweep_alone):
    codes, _, errors = Team(2, [*SWEEP, "--model.path", model, "--run-dir", f"{ROOT}/sweep"], evaluate).ends()
    assert codes == [0, 0], errors
    assert records_by_key(get_folder(bucket, "sweep", tmp_path / "two")) == sweep_alone
    names = sorted(name.removeprefix("sweep/") for name in bucket.names("sweep/"))
    assert names == [
        *("config.json", "decoding.jsonl", "records.jsonl", "report.html", "scaling.png", "scaling.svg"),
        "summary.json",
    ]


def test_a_sweep_is_stopped_goes_on_and_is_read_from_there(tmp_path, bucket, model, monkeypatch, capsys):
    arguments = [*SWEEP, "--model.path", model, "--run-dir", f"{ROOT}/sweep"]
    real, made = decode.graded, []

    def stopped(*asked):
        if len(made) == RECORDS // 2:
            raise KeyboardInterrupt
        made.append(asked)
        return real(*asked)

    monkeypatch.setattr(decode, "graded", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(arguments)
    monkeypatch.setattr(decode, "graded", real)
    assert len(bucket.read("sweep/records.jsonl").splitlines()) == RECORDS // 2
    capsys.readouterr()
    evaluate.main(arguments)
    said = capsys.readouterr().out
    assert f"{RECORDS // 2} of {RECORDS} records done" in said and f"report: {ROOT}/sweep/report.html" in said

    for name in ("summary.json", "report.html"):
        del bucket.objects[f"sweep/{name}"]
    evaluate.main([f"{ROOT}/sweep"])
    assert len(bucket.names("sweep/")) == 7
    evaluate.main(["--compare", f"{ROOT}/sweep", f"{ROOT}/sweep", f"{ROOT}/compare.json"])
    assert json.loads(bucket.read("compare.json"))["runs"] == [f"{ROOT}/sweep"] * 2
    grade.main([f"{ROOT}/sweep"])
    assert f"{RECORDS} records graded again, 0 verdicts changed" in capsys.readouterr().out
    with pytest.raises(UserError, match=rf"{ROOT}/sweep contains other records"):
        evaluate.main([*arguments, "--max-answer-tokens", "5"])


def test_generate_reads_and_goes_on_there(bucket, model, capsys):
    prompts = [json.dumps({"id": i, "prompt": f"What is {i} + {i}?"}) for i in range(3)]
    bucket.put("in.jsonl", "\n".join(prompts).encode())
    bucket.put("out/large.bin", b"another's")
    arguments = ["--model.path", model, "--input", f"{ROOT}/in.jsonl", "--output", f"{ROOT}/out/records.jsonl"]
    arguments += ["--budget.max-thinking-tokens", "8", "--max-answer-tokens", "4", "--max-model-len", "256"]
    generate.main(arguments)
    whole = bucket.read("out/records.jsonl")
    assert [json.loads(line)["problem_id"] for line in whole.splitlines()] == [0, 1, 2]
    bucket.put("out/records.jsonl", whole[: whole.index(b"\n") + 20])
    generate.main(arguments)
    assert bucket.read("out/records.jsonl") == whole and bucket.read("out/large.bin") == b"another's"
    assert f"{ROOT}/out/records.jsonl: 1 of 3 records are there already" in capsys.readouterr().err
    bucket.put("out/records.jsonl", b"{}\n" * 3)
    with pytest.raises(UserError, match=rf"{ROOT}/out/records.jsonl line 1 was made by another command"):
        generate.main(arguments)


def test_convert_there_and_back(tmp_path, bucket, model):
    convert.main(["--source", model, "--target", f"{ROOT}/orbax"])
    convert.main(["--source", f"{ROOT}/orbax", "--target", f"{ROOT}/again"])
    assert bucket.read("again/model.safetensors") == bucket.read("model/model.safetensors")
    with pytest.raises(UserError, match=f"{ROOT}/again exists"):
        convert.main(["--source", model, "--target", f"{ROOT}/again"])


def test_data_and_configs_are_read_from_there(tmp_path, bucket):
    import pyarrow
    from pyarrow.parquet import write_table

    rows = [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(3)]
    write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet")
    bucket.put("set/data/train-00000-of-00001.parquet", (tmp_path / "train-00000-of-00001.parquet").read_bytes())
    bucket.put("set.jsonl", "\n".join(map(json.dumps, rows)).encode())
    bucket.put("set.csv", b"question,answer\n0 + 1?,1\n1 + 1?,2\n2 + 1?,3\n")
    for path in ("set", "set.jsonl", "set.csv"):
        found = list(read_rows(f"{ROOT}/{path}", "train"))
        assert [dict(row.columns) for row in found] == rows and found[0].where.startswith(ROOT)
    with pytest.raises(UserError, match=f"no such file or folder: '{ROOT}/nowhere'"):
        list(read_rows(f"{ROOT}/nowhere", "train"))
    bucket.put("config.py", (PROJECT / "configs" / "quickstart_sft.py").read_bytes())
    with pytest.raises(UserError, match="no such file or folder: './nowhere.jsonl'"):
        train.main([f"{ROOT}/config.py", "--data.path", "./nowhere.jsonl", "--run-dir", f"{ROOT}/run"])
    assert not bucket.names("run/")
