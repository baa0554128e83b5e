"""Pulse test: the real main() on a tiny random model, stopped and started again, with every file it leaves behind."""

import json
import shutil
import subprocess
import sys
from statistics import fmean, stdev

import pytest

from s1_jax import evaluate
from s1_jax.checkpoints import hf
from s1_jax.config import BudgetConfig, EvaluateConfig, SettingConfig, TaskConfig
from s1_jax.errors import UserError
from s1_jax.evaluation import decode
from s1_jax.evaluation.settings import plan_rows
from s1_jax.tasks import load_rules, load_task
from s1_jax.tasks.classes import grader_classes
from tests.records.json_schema import assert_records
from tests.tokenizer import byte_tokenizer

CONFIG = """
from s1_jax.config import *

def get_config():
    return EvaluateConfig(task=TaskConfig(name="jsonl"), max_model_len=192, max_answer_tokens=6, batch_size=8)
"""
EXTRA = """
from s1_jax.config import *

def get_config():
    sampled = SettingConfig(sampling=SamplingConfig(temperature=1.0), samples=4)
    free = SettingConfig(BudgetConfig(forcing=False))
    least = SettingConfig(BudgetConfig(forcing=False, max_thinking_tokens=9))
    sweep = SweepConfig(max_thinking_tokens=(12,), extra=(sampled, free, least), scaling="within")
    task = TaskConfig(name="jsonl")
    return EvaluateConfig(task=task, sweep=sweep, max_model_len=192, max_answer_tokens=6, batch_size=8)
"""
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
PROBLEMS = 5
GRID = [
    "--sweep.max-thinking-tokens",
    "0",
    "4",
    "12",
    "--sweep.num-ignore",
    "0",
    "1",
    "--sweep.ignore-strings",
    "Wait",
    "Hmm",
]
SETTINGS = 3 * (1 + 2)  # without any ignored end both strings are one setting


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """A model in Hugging Face layout, another one, five problems, and the config files."""
    folder = tmp_path_factory.mktemp("evaluate")
    for name, seed in (("model", 0), ("other_model", 1)):
        made = tiny_model(seed=seed, vocab_size=len(byte_tokenizer()), tie_word_embeddings=True)
        made.torch_model.save_pretrained(folder / name)
        byte_tokenizer().save_pretrained(folder / name)
    rows = [{"id": i, "problem": f"{i}+{i}=?", "answer": 2 * i} for i in range(PROBLEMS)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.py").write_text(CONFIG)
    (folder / "extra.py").write_text(EXTRA)
    return folder


def evaluated(folder, run_dir, *overrides, config="config.py"):
    """Calls main() and returns the records in `run_dir`."""
    common = ["--run-dir", str(run_dir), "--model.path", str(folder / "model")]
    evaluate.main([str(folder / config), *common, "--task.path", str(folder / "problems.jsonl"), *overrides])
    return records_in(run_dir)


def records_in(run_dir):
    return [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(folder):
    """A run_dir in which all of GRID is done."""
    evaluated(folder, folder / "finished", *GRID)
    return folder / "finished"


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of it to work on."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def no_weights(monkeypatch):
    """Loading weights is an error."""
    monkeypatch.setattr(hf, "load_params", lambda *_, **__: pytest.fail("the weights were loaded"))


def test_one_record_per_problem_and_setting(finished):
    records = records_in(finished)
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


def test_summary_and_plot(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["records"] == SETTINGS * PROBLEMS and len(summary["runs"]) == SETTINGS
    assert {method["name"] for method in summary["methods"]} == {"Wait", "Hmm"}
    assert (finished / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (finished / "scaling.svg").read_text()
    page = (finished / "report.html").read_text()
    assert all(f'"id":"{i}"' in page and f"{i}+{i}=?" in page for i in range(PROBLEMS))


@pytest.mark.slow
def test_drafts_go_on_with_a_run_and_change_no_record(folder, finished, run_dir):
    path = run_dir / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[::3]))
    evaluated(folder, run_dir, *GRID, "--draft-tokens", "4")
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(lines)
    assert json.loads((run_dir / "summary.json").read_text())["cost"]["tokens_per_step"] > 1


def test_each_setting_by_itself_gives_the_same_records_and_costs_more(folder, finished, tmp_path):
    alone = tmp_path / "alone"
    evaluated(folder, alone, *GRID, "--sweep.shared-trace", "false")
    by_line = [sorted((run / "records.jsonl").read_text().splitlines()) for run in (alone, finished)]
    assert by_line[0] == by_line[1]
    costs = [json.loads((run / "summary.json").read_text())["cost"] for run in (alone, finished)]
    assert costs[0]["decoded_tokens"] == costs[0]["tokens_of_all_settings"] == costs[1]["tokens_of_all_settings"]
    assert costs[1]["tokens_of_longest_setting"] < costs[1]["decoded_tokens"] < costs[0]["decoded_tokens"]


@pytest.mark.usefixtures("no_weights")
def test_once_all_is_done_it_only_reports(folder, run_dir, capsys):
    records, summary = (run_dir / "records.jsonl").read_bytes(), (run_dir / "summary.json").read_bytes()
    for again in (lambda: evaluated(folder, run_dir, *GRID), lambda: evaluate.main([str(run_dir)])):
        (run_dir / "summary.json").unlink()
        again()
        assert (run_dir / "records.jsonl").read_bytes() == records
        assert (run_dir / "summary.json").read_bytes() == summary
        printed = capsys.readouterr().out
        assert "max 12, 1 x Hmm" in printed and "Control" in printed
        assert str(run_dir / "scaling.png") in printed and str(run_dir / "report.html") in printed


@pytest.mark.usefixtures("no_weights")
def test_records_that_do_not_say_how_they_were_graded_are_records(folder, run_dir):
    old = [{key: value for key, value in record.items() if key != "graded_by"} for record in records_in(run_dir)]
    (run_dir / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in old))
    assert evaluated(folder, run_dir, *GRID) == old


def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(folder, run_dir, monkeypatch):
    path = run_dir / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])  # torn in the middle of a line
    before = path.read_bytes().count(b"\n")
    graded, calls = decode.graded, iter(range(PROBLEMS))

    def interrupted(*args):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return graded(*args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(decode, "graded", interrupted)
        evaluated(folder, run_dir, *GRID)
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[: before + 3])
    evaluated(folder, run_dir, *GRID)
    assert path.read_bytes() == whole


def test_a_later_sweep_adds_what_is_new(folder, run_dir, capsys):
    before = records_in(run_dir)
    after = evaluated(
        folder, run_dir, "--sweep.max-thinking-tokens", "4", "6", "--task.limit", "2", "--batch-size", "3"
    )
    assert after[: len(before)] == before
    assert f"{len(after)}/{len(after)}" in capsys.readouterr().err
    assert [(r["problem_id"], r["max_thinking_tokens"]) for r in after[len(before) :]] == [(0, 6), (1, 6)]


def test_records_of_an_earlier_version_go_on_and_report(folder, run_dir):
    path = run_dir / "records.jsonl"
    later = ("ignored_ends", "question", "format", "end_bias")
    earlier = [{k: v for k, v in one.items() if k not in later} for one in records_in(run_dir)]
    config = json.loads((run_dir / "config.json").read_text())
    del config["format"]
    (run_dir / "config.json").write_text(json.dumps(config))
    path.write_text("".join(json.dumps(one) + "\n" for one in earlier[::2]))
    summary, records = (run_dir / "summary.json").read_bytes(), evaluated(folder, run_dir, *GRID)
    assert records[: len(earlier[::2])] == earlier[::2] and len(records) == len(earlier)
    before, after = (json.loads(one) for one in (summary, (run_dir / "summary.json").read_bytes()))
    assert before["runs"] == after["runs"]


@pytest.mark.usefixtures("no_weights")
def test_a_report_that_cannot_be_written_leaves_everything_else(folder, run_dir, capsys):
    (run_dir / "summary.json").unlink()
    (run_dir / "report.html").unlink()
    (run_dir / "report.html").mkdir()  # in the way
    with pytest.raises(OSError):
        evaluated(folder, run_dir, *GRID)
    assert (run_dir / "summary.json").exists() and "Control" in capsys.readouterr().out


def test_samples_and_no_forcing_beside_the_grid(folder, tmp_path):
    records = evaluated(folder, tmp_path, config="extra.py")
    assert_records(records)
    sampled = [record for record in records if record["temperature"] == 1.0]
    assert {(r["problem_id"], r["sample"]) for r in sampled} == {(i, s) for i in range(PROBLEMS) for s in range(4)}
    assert len({tuple(r["thinking_token_ids"]) for r in sampled if r["problem_id"] == 0}) > 1
    free = [record for record in records if not record["forcing"]]
    assert len(free) == 2 * PROBLEMS and len(records) == 7 * PROBLEMS
    for record in free:  # one limit of all, or one of each
        thinking, answer = record["num_thinking_tokens"], record["num_answer_tokens"]
        assert thinking + answer <= 6 if "max_new_tokens" in record else (thinking <= 9 and answer <= 6)
    assert sum("max_new_tokens" in record for record in free) == PROBLEMS
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["scaling_over"] == "within"
    (voting,) = (run["majority"] for run in summary["runs"] if run["majority"])
    assert [vote["k"] for vote in voting] == [1, 2, 4]
    assert not any(run["compared_as_text"] for run in summary["runs"])
    for i in range(PROBLEMS):
        of_problem = sorted((r for r in sampled if r["problem_id"] == i), key=lambda r: r["sample"])
        expected = grader_classes(load_rules(TaskConfig("jsonl")))([r["extracted_answer"] for r in of_problem])
        assert [r["answer_class"] for r in of_problem] == expected
    kept = (tmp_path / "records.jsonl").read_bytes()
    lines = kept.splitlines(keepends=True)
    lost = [json.dumps(json.loads(line) | {"answer_class": None}, ensure_ascii=False) for line in lines]
    (tmp_path / "records.jsonl").write_text("\n".join(lost) + "\n")  # as a kill before the end leaves them
    evaluated(folder, tmp_path, config="extra.py")
    assert (tmp_path / "records.jsonl").read_bytes() == kept


@pytest.mark.parametrize("given,limit,answer", [(None, None, 512), (512, 512, 512), (0, 0, 0)])
def test_without_forcing_an_answers_limit_bounds_all_where_it_is_given(given, limit, answer):
    config = EvaluateConfig(max_answer_tokens=given, max_model_len=4096)
    settings = [
        SettingConfig(BudgetConfig(forcing=False)),
        SettingConfig(BudgetConfig(max_thinking_tokens=9, forcing=False)),
        SettingConfig(),
    ]
    rows = plan_rows(config, load_task(TaskConfig(limit=1)), settings, byte_tokenizer())
    assert [row.request.free_tokens for row in rows] == [limit, None, None]
    assert [row.known.get("max_new_tokens") for row in rows] == [limit, None, None]
    assert [row.known["max_answer_tokens"] for row in rows] == [answer] * 3
    assert len({row.key for row in rows}) == 3


@pytest.mark.usefixtures("no_weights")
def test_other_records_are_not_mixed_in(folder, run_dir, tmp_path):
    shutil.copy(folder / "problems.jsonl", tmp_path)
    for overrides, word in [
        (["--max-answer-tokens", "5"], "max_answer_tokens was 6, is 5"),
        (["--stored.cache", "int8"], "stored.cache was 'float32', is 'int8'"),
        (["--model.path", str(folder / "other_model")], "model.sha256 was"),
        (["--task.path", str(tmp_path / "problems.jsonl")], "task.path was"),
    ]:
        with pytest.raises(UserError, match=f"{word}.*choose another --run-dir"):
            evaluated(folder, run_dir, *GRID, *overrides)


@pytest.mark.usefixtures("no_weights")
def test_runs_of_a_version_with_one_seed_go_on_and_report(folder, run_dir):
    config = json.loads((run_dir / "config.json").read_text())
    del config["seeds"]
    (run_dir / "config.json").write_text(json.dumps(config | {"seed": 3}))
    records = [record | {"seed": 3} for record in records_in(run_dir)]
    drawn = [record | {"temperature": 0.5} for record in records]
    (run_dir / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (*records, *drawn)))
    evaluate.main([str(run_dir)])
    assert evaluated(folder, run_dir, *GRID) == [*records, *drawn], "at temperature 0 no seed tells records apart"
    assert evaluated(folder, run_dir, *GRID, "--sampling.temperature", "0.5", "--seeds", "3") == [*records, *drawn]


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(("field", "other"), [("gold", "99"), ("prompt_token_ids", [1, 2])])
def test_a_changed_problem_is_noticed(folder, run_dir, field, other):
    records = records_in(run_dir)
    records[7][field] = other
    (run_dir / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(UserError, match=f"problem {records[7]['problem_id']} .*{field}"):
        evaluated(folder, run_dir, *GRID)


@pytest.mark.usefixtures("no_weights")
def test_a_config_that_is_cut_off_is_told_where_records_go_by_it_and_else_written_anew(folder, run_dir):
    path = run_dir / "config.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match=f"{path}: not JSON .*remove it: the same command then writes it anew"):
        evaluated(folder, run_dir, *GRID)
    path.write_text('{"task": [], "model": 3}')
    with pytest.raises(UserError, match=f"{path}: model is 3; it must be an object"):
        evaluated(folder, run_dir, *GRID)
    path.unlink()
    before = records_in(run_dir)
    assert evaluated(folder, run_dir, *GRID) == before and json.loads(path.read_text())["task"]["name"] == "jsonl"


@pytest.mark.usefixtures("no_weights")
def test_what_lies_beside_the_records_stays_and_what_is_there_twice_is_done(folder, run_dir, capsys):
    """A copy with a date was taken for another process's records, merged and deleted."""
    records = (run_dir / "records.jsonl").read_bytes()
    for name in ("records-2025-01-01.jsonl", "records-1.jsonl", "records-old.jsonl", "decoding-1.jsonl"):
        (run_dir / name).write_bytes(b"not a record\n" if "old" in name else records)
    (run_dir / "records.jsonl").write_bytes(records + records[: records.index(b"\n") + 1])
    before = {path.name: path.read_bytes() for path in run_dir.glob("*-*.jsonl")}
    evaluated(folder, run_dir, *GRID)
    assert {path.name: path.read_bytes() for path in run_dir.glob("*-*.jsonl")} == before and len(before) == 4
    assert capsys.readouterr().err.count("each counts once") == 1
    assert json.loads((run_dir / "summary.json").read_text())["records"] == records.count(b"\n")


def test_a_start_that_failed_binds_to_nothing(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="max_model_len 192"):
        evaluated(folder, tmp_path, "--max-answer-tokens", "500")
    monkeypatch.setattr(evaluate, "decode", lambda *_: None)
    with pytest.raises(UserError, match="holds no records"):  # what is left to say once nothing is decoded
        evaluated(folder, tmp_path, "--max-answer-tokens", "5")


def test_mistakes_are_named(folder, tmp_path):
    for overrides, word in [
        (["--seeds", "0", "1", "0"], "seeds .*each once"),
        (["--seed", "1"], "--seeds"),
        (["--model.path", str(tmp_path / "nowhere")], "nowhere"),
        (["--task.path", str(tmp_path / "nowhere.jsonl")], "nowhere.jsonl"),
        (["--sweep.num-ignores", "1"], "--sweep.num-ignore"),
    ]:
        with pytest.raises(UserError, match=word):
            evaluated(folder, tmp_path / "run", *overrides)
    for contents in ("", '{"task": "x"}\n'):  # the second has lost its config.json
        (tmp_path / "records.jsonl").write_text(contents)
        with pytest.raises(UserError, match="holds no records"):
            evaluate.main([str(tmp_path)])


def test_the_command_says_mistakes_in_one_line():
    command = [sys.executable, "-m", "s1_jax.evaluate", "no_such_config.py"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no config file no_such_config.py") and ended.stderr.count("\n") == 1


def test_instructions_stand_behind_the_question_and_rejected_runs_are_drawn_again(folder, tmp_path):
    asked = ["--sweep.instructions", "None", "short", "token 12", "--sweep.max-thinking-tokens", "12"]
    drawn = ["--sampling.temperature", "1", "--sweep.max-tries", "3"]
    records = evaluated(folder, tmp_path, *asked, *drawn)
    assert len(records) == 3 * PROBLEMS
    assert_records(records)
    texts = {None: "", "short": "Answer after a short amount of thinking.", "token 12": "Think for up to 12 tokens."}
    for record in records:
        question = byte_tokenizer().decode(record["prompt_token_ids"])
        assert "=?" in question and texts[record["instruction"]] in question
        assert all(text not in question for words, text in texts.items() if words != record["instruction"] and text)
        assert 1 <= record["tries"] <= 3 and record["sample"] == 0
        assert record["end"] == "natural" or record["tries"] == 3
        assert record["num_thinking_tokens"] <= record["tried_tokens"] <= 12 * record["tries"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {run["setting"]["max_tries"] for run in summary["runs"]} == {3}
    assert {method["name"] for method in summary["methods"]} >= {"rejection sampling, T 1"}
    assert evaluated(folder, tmp_path, *asked, *drawn) == records


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
