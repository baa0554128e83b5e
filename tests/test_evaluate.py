"""Pulse test: the real main() on a tiny random model, with every file it leaves behind."""

import json
import shutil
import subprocess
import sys
from statistics import fmean, stdev

import pytest

from s1_jax import evaluate
from s1_jax.errors import UserError
from tests.records.json_schema import assert_records
from tests.sweeps import GRID, PROBLEMS, SETTINGS, evaluated, records_in

SEEDS = """
from importlib.resources import files
from s1_jax.config import *

def get_config():
    model = ModelSource(str(files("s1_jax") / "assets" / "tiny_base"))
    sweep, sampling = SweepConfig(num_ignore=(1,), extra=(SettingConfig(),)), SamplingConfig(temperature=1.0)
    sizes = dict(max_answer_tokens=6, max_model_len=192, batch_size=32)
    return EvaluateConfig(model=model, task=TaskConfig(limit=8), sweep=sweep, sampling=sampling, **sizes)
"""
FIELDS = {
    *("task", "problem_id", "sample", "seed", "temperature"),
    *("min_thinking_tokens", "max_thinking_tokens", "num_ignore", "ignore_string"),
    *("prompt_token_ids", "thinking_token_ids", "answer_token_ids", "num_thinking_tokens", "num_answer_tokens"),
    *("end", "answer_end", "ignores_used", "ignored_ends", "question", "text", "extracted_answer", "gold", "correct"),
    "graded_by",
}


def test_one_record_per_problem_and_setting(finished_sweep):
    records = records_in(finished_sweep)
    assert len(records) == SETTINGS * PROBLEMS
    assert_records(records)
    assert all(set(record) >= FIELDS for record in records)
    keys = {(r["problem_id"], r["max_thinking_tokens"], r["num_ignore"], r["ignore_string"]) for r in records}
    assert len(keys) == len(records)
    longest = {
        (r["problem_id"], r["num_ignore"], r["ignore_string"]): r for r in records if r["max_thinking_tokens"] == 12
    }
    for record in records:
        assert record["gold"] == str(2 * record["problem_id"])
        assert record["task"] == "jsonl" and record["seed"] == 0 and record["sample"] == 0
        assert record["num_thinking_tokens"] == len(record["thinking_token_ids"]) <= record["max_thinking_tokens"]
        assert record["correct"] is (record["extracted_answer"] == record["gold"])
        same_row = longest[record["problem_id"], record["num_ignore"], record["ignore_string"]]
        assert record["thinking_token_ids"] == same_row["thinking_token_ids"][: record["max_thinking_tokens"]]


def test_summary_and_plot(finished_sweep):
    summary = json.loads((finished_sweep / "summary.json").read_text())
    assert summary["records"] == SETTINGS * PROBLEMS and len(summary["runs"]) == SETTINGS
    assert {method["name"] for method in summary["methods"]} == {"Wait", "Hmm"}
    assert (finished_sweep / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (finished_sweep / "scaling.svg").read_text()
    page = (finished_sweep / "report.html").read_text()
    assert all(f'"id":"{i}"' in page and f"{i}+{i}=?" in page for i in range(PROBLEMS))


@pytest.mark.usefixtures("no_weights")
def test_once_all_is_done_it_only_reports(sweep_folder, sweep_copy, capsys):
    records, summary = (sweep_copy / "records.jsonl").read_bytes(), (sweep_copy / "summary.json").read_bytes()
    for again in (lambda: evaluated(sweep_folder, sweep_copy, *GRID), lambda: evaluate.main([str(sweep_copy)])):
        (sweep_copy / "summary.json").unlink()
        again()
        assert (sweep_copy / "records.jsonl").read_bytes() == records
        assert (sweep_copy / "summary.json").read_bytes() == summary
        printed = capsys.readouterr().out
        assert "max 12, 1 x Hmm" in printed and "Control" in printed
        assert str(sweep_copy / "scaling.png") in printed and str(sweep_copy / "report.html") in printed


def test_mistakes_are_named(sweep_folder, tmp_path):
    for overrides, word in [
        (["--seeds", "0", "1", "0"], "seeds .*each once"),
        (["--seed", "1"], "--seeds"),
        (["--model.path", str(tmp_path / "nowhere")], "nowhere"),
        (["--task.path", str(tmp_path / "nowhere.jsonl")], "nowhere.jsonl"),
        (["--sweep.num-ignores", "1"], "--sweep.num-ignore"),
    ]:
        with pytest.raises(UserError, match=word):
            evaluated(sweep_folder, tmp_path / "run", *overrides)
    for contents in ("", '{"task": "x"}\n'):  # the second has lost its config.json
        (tmp_path / "records.jsonl").write_text(contents)
        with pytest.raises(UserError, match="contains no records"):
            evaluate.main([str(tmp_path)])


def test_the_command_says_mistakes_in_one_line():
    command = [sys.executable, "-m", "s1_jax.evaluate", "no_such_config.py"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no config file no_such_config.py") and ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_shipped_model_under_several_seeds(tmp_path, capsys):
    (tmp_path / "config.py").write_text(SEEDS)
    run_dir, one_seed, said = tmp_path / "run", tmp_path / "one_seed", []
    for seeds in ("0 1", "1 2"):
        evaluate.main([str(tmp_path / "config.py"), "--run-dir", str(run_dir), "--seeds", *seeds.split()])
        said.append(capsys.readouterr().out)
    assert "at temperature 0 every seed gives the same records: 1 of 2 settings" in said[0]
    assert "8 problems x 2 settings x 2 seeds, 0 of 24 records done" in said[0]
    assert "8 problems x 2 settings x 2 seeds, 16 of 24 records done" in said[1], "the greedy ones, and seed 1"
    records = records_in(run_dir)
    drawn = {(one["problem_id"], one["seed"]): one for one in records if one["temperature"]}
    assert len(records) == 8 * (1 + 3) and len(drawn) == 8 * 3
    summary = json.loads((run_dir / "summary.json").read_text())
    greedy, sampled = summary["runs"]
    assert (greedy["draws"], greedy["records"], greedy["between_seeds"]) == ("", 8, None)
    of_seeds = [100 * fmean(one["correct"] for (_, seed), one in drawn.items() if seed == n) for n in range(3)]
    assert len(set(of_seeds)) > 1 and (sampled["draws"], sampled["records"]) == ("3 seeds", 24)
    assert (sampled["accuracy"], sampled["between_seeds"]) == pytest.approx((fmean(of_seeds), stdev(of_seeds)))

    shutil.copytree(run_dir, one_seed)
    (one_seed / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records if one["seed"] == 0))
    evaluate.main(["--compare", str(run_dir), str(one_seed), str(tmp_path / "compare.json")])
    compared = json.loads((tmp_path / "compare.json").read_text())["settings"]
    assert [one["problems"] for one in compared] == [8, 8]
    assert [compared[1]["first"], compared[1]["second"]] == pytest.approx([sampled["accuracy"], of_seeds[0]])
