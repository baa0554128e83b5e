"""Records are the same however they are decoded: with drafts, alone, sampled, without forcing, tried again."""

import json

import pytest

from s1_jax.config import TaskConfig
from s1_jax.tasks import load_rules
from s1_jax.tasks.classes import grader_classes
from tests.records.json_schema import assert_records
from tests.sweeps import GRID, PROBLEMS, evaluated
from tests.tokenizer import byte_tokenizer


@pytest.mark.slow
def test_drafts_go_on_with_a_run_and_change_no_record(sweep_folder, finished_sweep, sweep_copy):
    path = sweep_copy / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[::3]))
    evaluated(sweep_folder, sweep_copy, *GRID, "--draft-tokens", "4")
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(lines)
    assert json.loads((sweep_copy / "summary.json").read_text())["cost"]["tokens_per_step"] > 1


def test_each_setting_by_itself_gives_the_same_records_and_costs_more(sweep_folder, finished_sweep, tmp_path):
    alone = tmp_path / "alone"
    evaluated(sweep_folder, alone, *GRID, "--sweep.shared-trace", "false")
    by_line = [sorted((run / "records.jsonl").read_text().splitlines()) for run in (alone, finished_sweep)]
    assert by_line[0] == by_line[1]
    costs = [json.loads((run / "summary.json").read_text())["cost"] for run in (alone, finished_sweep)]
    assert costs[0]["decoded_tokens"] == costs[0]["tokens_of_all_settings"] == costs[1]["tokens_of_all_settings"]
    assert costs[1]["tokens_of_longest_setting"] < costs[1]["decoded_tokens"] < costs[0]["decoded_tokens"]


def test_samples_and_no_forcing_beside_the_grid(sweep_folder, tmp_path):
    records = evaluated(sweep_folder, tmp_path, config="extra.py")
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
    evaluated(sweep_folder, tmp_path, config="extra.py")
    assert (tmp_path / "records.jsonl").read_bytes() == kept


def test_instructions_stand_behind_the_question_and_rejected_runs_are_drawn_again(sweep_folder, tmp_path):
    asked = ["--sweep.instructions", "None", "short", "token 12", "--sweep.max-thinking-tokens", "12"]
    drawn = ["--sampling.temperature", "1", "--sweep.max-tries", "3"]
    records = evaluated(sweep_folder, tmp_path, *asked, *drawn)
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
    assert evaluated(sweep_folder, tmp_path, *asked, *drawn) == records
