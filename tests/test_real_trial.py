"""Real input by the command line, from end to end: Qwen2.5's tokenizer, 8,192-token rows, AIME 2024 and MATH500."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from urllib.parse import urlencode

import pytest
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from s1_jax.tasks.answers import extract_answer
from tests.reporting.browser import run_in_page

PROJECT = Path(__file__).resolve().parents[1]
LENGTH, EXAMPLES, STEPS = 8192, 16, 6  # as many traces as fill 6 rows
BUDGETS, PROBLEMS = (16, 48), 5
MATH_PROBLEMS, IGNORED = 20, (0, 1)
RULES = {"none", "number", "text", "math", "undecided"}

CONFIGS = """
from s1_jax.config import *

def get_config():
    return {config}
"""
TRAIN = """TrainConfig(
    run_dir="sft",
    model=ModelSource("model"),
    data=DataConfig("traces.jsonl", max_length={length}, batch_by="tokens", batch_tokens={length}),
    optim=OptimConfig(peak_lr=2e-2),
    train=TrainLoopConfig(epochs=1),
)"""
SWEEP = """EvaluateConfig(
    run_dir="sweep",
    model=ModelSource("sft/hf"),
    task=TaskConfig("aime24", {aime!r}, limit={problems}),
    sweep=SweepConfig(max_thinking_tokens={budgets}),
    max_answer_tokens=8,
    max_model_len=1024,
    batch_size=5,
)"""


@pytest.fixture(scope="module")
def trial(shared_data, tmp_path_factory):
    """A folder with a small random Qwen2 of Qwen2.5's tokens, real traces of three sources, and both runs' results."""
    folder = tmp_path_factory.mktemp("trial")
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(shared_data / "qwen25_tokenizer").save_pretrained(folder / "model")
    sources = [path.read_text().splitlines() for path in sorted((shared_data / "long_cot_traces").glob("*.jsonl"))]
    complete = [[line for line in lines if json.loads(line)["attempt"].strip()] for lines in sources]
    some = [line for lines in zip_longest(*complete) for line in lines if line][:EXAMPLES]
    kept = [{key: json.loads(line)[key] for key in ("question", "thinking", "attempt")} for line in some]
    (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    aime = str(shared_data / "aime24" / "aime24_nofigures.jsonl")
    (folder / "train.py").write_text(CONFIGS.format(config=TRAIN.format(length=LENGTH)))
    (folder / "sweep.py").write_text(CONFIGS.format(config=SWEEP.format(aime=aime, problems=PROBLEMS, budgets=BUDGETS)))
    run(folder, "train", "train.py")
    run(folder, "evaluate", "sweep.py")
    return folder


@pytest.fixture(scope="module")
def math500(trial, shared_data):
    """The run folder of a sweep over the first problems of MATH500, with what the command line alone changes."""
    task = ["--task.name", "math500", "--task.path", str(shared_data / "math500" / "math500.jsonl")]
    limit, ignored = ["--task.limit", str(MATH_PROBLEMS)], ["--sweep.num-ignore", *map(str, IGNORED)]
    run(trial, "evaluate", "sweep.py", "--run-dir", "math500", *task, *limit, *ignored)
    return trial / "math500"


def run(folder, *arguments):
    command = [sys.executable, "-m", f"s1_jax.{arguments[0]}", *arguments[1:]]
    env = dict(os.environ, PYTHONPATH=str(PROJECT))
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr


def records_in(run_dir):
    return [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_few_steps_on_real_traces_lower_the_loss(trial):
    metrics = [json.loads(line) for line in (trial / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == STEPS
    assert sum(row["loss"] for row in metrics[-2:]) / 2 < sum(row["loss"] for row in metrics[:2]) / 2 - 0.3
    assert sum(row["real_share"] for row in metrics) / STEPS > 0.5


@pytest.mark.slow
def test_the_export_loads_and_speaks_qwens_tokens(trial):
    model = Qwen2ForCausalLM.from_pretrained(trial / "sft" / "hf")
    assert model.config.vocab_size == 151936 and model.config.tie_word_embeddings
    assert AutoTokenizer.from_pretrained(trial / "sft" / "hf").encode("<|im_start|>think") == [151644, 26865]


@pytest.mark.slow
def test_two_budgets_over_five_aime_problems_give_valid_records(trial):
    records = records_in(trial / "sweep")
    assert len(records) == PROBLEMS * len(BUDGETS)
    by_budget = {n: {r["problem_id"]: r for r in records if r["max_thinking_tokens"] == n} for n in BUDGETS}
    assert [len(of_budget) for of_budget in by_budget.values()] == [PROBLEMS, PROBLEMS]
    for problem, short in by_budget[BUDGETS[0]].items():
        long = by_budget[BUDGETS[1]][problem]
        assert long["thinking_token_ids"][: BUDGETS[0]] == short["thinking_token_ids"]
    for record in records:
        assert record["task"] == "aime24" and record["gold"].isdigit() and isinstance(record["correct"], bool)
        assert record["end"] in ("natural", "forced") and record["answer_end"] in ("stop", "length")
        assert record["num_thinking_tokens"] == len(record["thinking_token_ids"]) <= record["max_thinking_tokens"]
        assert (
            max(record["thinking_token_ids"] + record["answer_token_ids"]) < 151665
        )  # ids the tokenizer does not know are never drawn
        assert record["text"].startswith("<|im_start|>think") and "<|im_start|>answer" in record["text"]
        if record["end"] == "forced":
            assert "<|im_start|>answer\nFinal Answer:" in record["text"]
    summary = json.loads((trial / "sweep" / "summary.json").read_text())
    assert summary and (trial / "sweep" / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_grid_over_math500_gives_every_record_graded(math500, shared_data):
    lines = (shared_data / "math500" / "math500.jsonl").read_text().splitlines()[:MATH_PROBLEMS]
    rows = [json.loads(line) for line in lines]
    records = records_in(math500)
    settings = set(itertools.product(BUDGETS, IGNORED))
    by_setting = {
        (most, count): [r for r in records if (r["max_thinking_tokens"], r["num_ignore"]) == (most, count)]
        for most, count in settings
    }
    asked = sorted((row["problem"], row["answer"]) for row in rows)
    assert len(records) == len(settings) * MATH_PROBLEMS
    for of_setting in by_setting.values():
        assert sorted((record["question"], record["gold"]) for record in of_setting) == asked
    for record in records:
        assert record["task"] == "math500" and record["graded_by"] in RULES
        assert (record["graded_by"] == "none") == (record["extracted_answer"] is None)
        assert record["extracted_answer"] == extract_answer(record["text"])
        assert len(record["thinking_token_ids"]) <= record["max_thinking_tokens"]
    summary = json.loads((math500 / "summary.json").read_text())
    assert [run["problems"] for run in summary["runs"]] == [MATH_PROBLEMS] * len(settings)


@pytest.mark.slow
def test_the_report_of_math500_shows_its_problems_in_a_browser(math500, tmp_path):
    records = records_in(math500)
    script = "press('f'); return [all('#list a').length, text('.question'), text('.gold bdi')]"  # formulas as LaTeX
    first = records[0]["problem_id"]
    page = (math500 / "report.html").read_text()
    found = run_in_page(page, tmp_path, script, "#" + urlencode({"problem": first}))
    assert found == [MATH_PROBLEMS, records[0]["question"], records[0]["gold"]]
