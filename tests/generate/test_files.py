"""`python -m s1_jax.generate` from a file of prompts to a file of records, whole or stopped in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from s1_jax.data.prompts import read_prompts
from s1_jax.errors import UserError
from s1_jax.generate import main
from tests.generate.command import FIELDS, ROWS, arguments, output
from tests.runs import PATIENCE


def test_records_come_in_input_order(run, model, folder):
    rows = [{"prompt": "hi", "id": "a"}, {"prompt_token_ids": [5, 6], "id": 7}, {"prompt": "x" * 20}] * 3
    records = run(rows, "--budget.max-thinking-tokens", "6", "--batch-size", "2", "--seed", "3")
    assert [r["problem_id"] for r in records] == ["a", 7, None] * 3
    assert records[0]["prompt_token_ids"] == model.generate(["hi"], max_answer_tokens=4)[0]["prompt_token_ids"]
    assert all(set(FIELDS) <= set(r) and r["seed"] == 3 and r["max_thinking_tokens"] == 6 for r in records)
    assert all(r["task"] is r["gold"] is r["correct"] is r["extracted_answer"] is None for r in records)
    assert {r["model"] for r in records} == {str(folder)}
    assert records[3:6] == records[:3]


def test_a_rows_own_budget_wins(run):
    own = {"max_thinking_tokens": 2, "num_ignore": 1, "ignore_string": ["Hm", ""]}
    free = {"forcing": False, "max_thinking_tokens": None, "num_ignore": 0}
    rows = [{"prompt": "hi"}, {"prompt": "hi", "budget": own}, {"prompt": "hi", "budget": free}]
    flags = ("--budget.max-thinking-tokens", "4", "--budget.num-ignore", "2", "--budget.ignore-string", "Wait")
    shared, mine, without = run(rows, *flags)
    assert (shared["max_thinking_tokens"], shared["num_ignore"], shared["ignore_string"]) == (4, 2, "Wait")
    assert {name: mine[name] for name in own} == own
    assert mine["min_thinking_tokens"] == 1 and mine["num_thinking_tokens"] <= 2
    assert without["forcing"] is False and without["max_thinking_tokens"] is None


def test_records_can_be_input_again(run, tmp_path):
    (record,) = run([{"prompt": "hi"}], "--budget.max-thinking-tokens", "4")
    (tmp_path / "out.jsonl").unlink()
    (again,) = run([{"prompt_token_ids": record["prompt_token_ids"]}], "--budget.max-thinking-tokens", "4")
    assert again == record


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "hi"', "not JSON"),
        ("[1]", "a list where an object is needed"),
        ('{"prompt": "hi", "id": ' + "7" * 5000 + "}", "has 5,000 digits"),
        ('{"prompt": "hi", "id": ' + "[" * 100_000, "nested more than"),
        ('{"prompt": "hi", "prompt": "ho"}', "the key 'prompt' occurs twice"),
        ('{"prompt": "hi", "budget": {"end_bias": NaN}}', "NaN is not a number"),
        ('{"prompt": "\\ud83d"}', "field 'prompt' must be a string of valid Unicode"),
        ('{"text": "hi"}', "needs a field 'prompt' or a field 'prompt_token_ids'"),
        ('{"prompt": "hi", "prompt_token_ids": [1]}', "and not both"),
        ('{"prompt": 3}', "field 'prompt' must be a string"),
        ('{"prompt_token_ids": [1, "2"]}', "field 'prompt_token_ids' must be a list of whole numbers"),
        ('{"prompt_token_ids": []}', "the prompt is empty"),
        ('{"prompt_token_ids": [999]}', "token id 999 lies outside"),
        ('{"prompt": "hi", "id": [1]}', "field 'id' must be"),
        ('{"prompt": "hi", "budget": 3}', "field 'budget' must be an object"),
        ('{"prompt": "hi", "budget": {"max_tokens": 3}}', "field 'budget': unknown field 'max_tokens'"),
        (
            '{"prompt": "hi", "budget": {"min_thinking_tokens": 9, "max_thinking_tokens": 2}}',
            "is above max_thinking_tokens",
        ),
        (json.dumps({"prompt": "x" * 200}), "pass max_model_len 128"),
    ],
)
def test_bad_rows_name_file_line_and_field(folder, tmp_path, line, message):
    (tmp_path / "in.jsonl").write_text('{"prompt": "fine"}\n\n' + line + "\n")
    with pytest.raises(UserError, match=r"in\.jsonl, line 3") as error:
        main(arguments(folder, tmp_path))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_blank_lines_and_line_separators_inside_text_are_no_rows(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": "a\u2028b"}, ensure_ascii=False) + "\n\n", encoding="utf-8")
    assert [row for _, row in read_prompts(path)] == [{"prompt": "a\u2028b"}]


def test_a_killed_run_goes_on(run, tmp_path):
    whole = run(ROWS, "--batch-size", "2")
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines(keepends=True)
    for kept, torn in ((0, 30), (2, 1), (2, 0), (3, len(lines[3]) - 1), (5, 0)):
        rest = lines[kept][:torn] if torn else b""
        (tmp_path / "out.jsonl").write_bytes(b"".join(lines[:kept]) + rest)
        assert run(ROWS, "--batch-size", "2") == whole
    assert run(ROWS, "--batch-size", "3") == whole


@pytest.mark.slow
def test_drafts_change_no_record(run, tmp_path):
    whole = run(ROWS)
    (tmp_path / "out.jsonl").unlink()
    assert run(ROWS, "--draft-tokens", "3") == whole


def test_an_output_of_another_command_is_not_touched(run, tmp_path):
    run(ROWS[:2])
    before = (tmp_path / "out.jsonl").read_bytes()
    for rows, flags, message in (
        (
            ROWS[:2],
            ("--budget.max-thinking-tokens", "3"),
            "line 1 was made by another command .its max_thinking_tokens",
        ),
        (ROWS[:2], ("--seed", "1"), "its seed differs"),
        (ROWS[:2], ("--sampling.temperature", "1"), "its temperature differs"),
        (ROWS[:2], ("--model.dtype", "bfloat16"), "its dtype differs"),
        (ROWS[1:3], (), "its prompt_token_ids differs"),
        (ROWS[:1], (), "has 2 lines, more than the 1 prompts"),
    ):
        with pytest.raises(UserError, match=message):
            run(rows, *flags)
    assert (tmp_path / "out.jsonl").read_bytes() == before
    (tmp_path / "out.jsonl").write_text("my notes")
    with pytest.raises(UserError, match="not a record"):
        run(ROWS[:2])
    assert (tmp_path / "out.jsonl").read_text() == "my notes"


def test_no_thinking_from_file_to_file(run, model, tmp_path):
    records = run(ROWS[:3], "--no-thinking")
    asked = [row["prompt"] for row in ROWS[:3]]
    wanted = model.generate(asked, max_answer_tokens=4, thinking=False)
    assert [{name: record[name] for name in wanted[0]} for record in records] == wanted
    assert run(ROWS[:3], "--no-thinking") == records
    for rows, flags, message in (
        (ROWS[:3], (), "line 1 was made by another command .its thinking differs"),
        (
            ROWS[:3],
            ("--no-thinking", "--budget.max-thinking-tokens", "3"),
            "line 1: without thinking there is no budget",
        ),
        ([ROWS[0], ROWS[1] | {"budget": {"num_ignore": 1}}], ("--no-thinking",), "line 2: .*leave out num_ignore"),
    ):
        with pytest.raises(UserError, match=message):
            run(rows, *flags)
    (tmp_path / "out.jsonl").unlink()
    run(ROWS[:2])
    with pytest.raises(UserError, match="its thinking differs"):
        run(ROWS[:2], "--no-thinking")


def test_a_limit_without_forcing_is_part_of_what_made_a_file(run, tmp_path):
    free = [row | {"budget": {"forcing": False}} for row in ROWS[:2]]
    assert {record["max_new_tokens"] for record in run(free)} == {4}
    with pytest.raises(UserError, match="its max_answer_tokens differs"):
        run(free, "--max-answer-tokens", "32")  # the default of no limit
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    (tmp_path / "out.jsonl").write_text("".join(line.replace('"max_new_tokens": 4, ', "") + "\n" for line in lines))
    with pytest.raises(UserError, match="its max_new_tokens differs"):
        run(free)


def test_ctrl_c_leaves_what_is_done(folder, tmp_path):
    """The real process: SIGINT after the first records; the same command finishes the rest."""
    budget = {"min_thinking_tokens": 60, "max_thinking_tokens": 60}
    rows = [{"prompt": f"number {i}", "budget": budget} for i in range(2000)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "s1_jax.generate", *arguments(folder, tmp_path, "--batch-size", "1")]
    out = tmp_path / "out.jsonl"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    deadline = time.monotonic() + PATIENCE
    while not (out.exists() and out.stat().st_size) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    assert stderr.strip().splitlines()[-1].startswith("interrupted") and "Traceback" not in stderr
    done = output(tmp_path)
    assert 0 < len(done) < len(rows)
    assert [r["num_thinking_tokens"] for r in done] == [60] * len(done)
