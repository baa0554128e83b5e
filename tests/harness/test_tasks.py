"""The model `s1_jax` in lm-evaluation-harness's own evaluator and command line, on the harness's own tasks.

The tasks are the harness's YAML files (gsm8k, arc_easy), included, and pointed at a few rows made here: their data sets
are on the hub. For gsm8k that changes what the user is asked (the bare question) and how many examples come before it
(none).
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import s1_jax
from s1_jax.data.synthetic import generate_problems

pytest.importorskip("lm_eval", reason="needs lm_eval: pip install 's1_jax[lm-eval]'")

import lm_eval
import lm_eval.tasks

from s1_jax import lm_eval as command
from s1_jax.harness import model as harness
from tests.harness.asking import loaded

HARNESS_TASKS = Path(lm_eval.__file__).parent / "tasks"
TINY_BASE = Path(s1_jax.__file__).parent / "assets" / "tiny_base"
PROBLEMS = 10
THINKING = "max_gen_toks=512,max_tokens_thinking=44,thinking_n_ignore=2,thinking_n_ignore_str=Wait"
SAME_BUDGET = {"max_thinking_tokens": 44, "num_ignore": 2}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with two of the harness's tasks, on rows made here."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": row["problem"], "answer": f"So it is.\n#### {row['answer']}"}
        for row in generate_problems(0, 99)
        if " e" not in row["problem"]  # four updates at most: the tiny base works them out within 44 tokens
    ][:PROBLEMS]
    choices = {"text": ["one", "seven", "a 1"], "label": ["A", "B", "C"]}
    picks = [{"question": row["question"], "choices": choices, "answerKey": "ABC"[i % 3]} for i, row in enumerate(rows)]
    for name, made in (("problems", rows), ("picks", picks)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    (folder / "gsm8k_here.yaml").write_text(
        f"include: {HARNESS_TASKS / 'gsm8k' / 'gsm8k.yaml'}\n"
        "task: gsm8k_here\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs:\n  data_files: {{train: {folder}/problems.jsonl, test: {folder}/problems.jsonl}}\n"
        'doc_to_text: "{{question}}"\nnum_fewshot: 0\n'
        "generation_kwargs: {until: [], do_sample: false}\n"
    )
    (folder / "arc_here.yaml").write_text(
        f"include: {HARNESS_TASKS / 'arc' / 'arc_easy.yaml'}\n"
        "task: arc_here\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs:\n  data_files: {{train: {folder}/picks.jsonl, validation: {folder}/picks.jsonl, "
        f"test: {folder}/picks.jsonl}}\n"
    )
    return folder


@pytest.fixture
def evaluate(tasks):
    """`evaluate(task, **options)`: its results and samples by the harness's evaluator, on the model that ships here."""

    def evaluate(task, **options):
        manager = lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False)
        found = lm_eval.simple_evaluate(
            "s1_jax",
            {"pretrained": str(TINY_BASE), "batch_size": PROBLEMS},
            [task],
            task_manager=manager,
            bootstrap_iters=0,
            **options,
        )
        return found["results"][task], found["samples"][task]

    return evaluate


@pytest.fixture
def engine_texts(tasks):
    """`engine_texts(**options)`: what this project's own engine makes of the same problems, without the stop token."""

    def engine_texts(**options):
        questions = [json.loads(line)["question"] for line in (tasks / "problems.jsonl").read_text().splitlines()]
        model = loaded(str(TINY_BASE), "float32", harness.StoredConfig())
        records = model.generate(questions, batch_size=PROBLEMS, **options)
        return [re.sub(r"(<\|im_end\|>|<\|endoftext\|>)$", "", record["text"]) for record in records]

    return engine_texts


def test_a_task_of_the_harness_scores_what_the_engine_writes(evaluate, engine_texts, tasks):
    results, samples = evaluate("gsm8k_here", gen_kwargs=THINKING, apply_chat_template=True)
    by_filter = {name: [s for s in samples if s["filter"] == name] for name in ("strict-match", "flexible-extract")}
    texts = engine_texts(budget=SAME_BUDGET, max_answer_tokens=99)
    assert [s["resps"] for s in by_filter["flexible-extract"]] == [[[text]] for text in texts]
    gold = [json.loads(line)["answer"].split()[-1] for line in (tasks / "problems.jsonl").read_text().splitlines()]
    right = [re.findall(r"-?[0-9]+", text)[-1].rstrip(".") == answer for text, answer in zip(texts, gold, strict=True)]
    assert results["exact_match,flexible-extract"] == np.mean(right) and np.mean(right) > 0
    assert results["exact_match,strict-match"] == 0.0  # the model never writes ####


def test_the_command_line_of_the_harness(tasks, engine_texts, tmp_path, monkeypatch, capsys):
    """In this process, and with an index of the tasks given alone: reading all of the harness's takes it 10 seconds."""
    every = lm_eval.tasks.TaskManager
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", partial(every, include_defaults=False))
    arguments = ["--model", "s1_jax", "--model_args", f"pretrained={TINY_BASE}", "--batch_size", str(PROBLEMS)]
    arguments += ["--tasks", "gsm8k_here", "--include_path", str(tasks), "--apply_chat_template"]
    arguments += ["--gen_kwargs", THINKING, "--output_path", str(tmp_path), "--log_samples"]
    monkeypatch.setattr(sys, "argv", ["lm_eval", *arguments])
    command.main()
    printed = capsys.readouterr().out
    assert "Tasks" in printed and "|gsm8k_here|" in printed
    (samples,) = tmp_path.rglob("samples_gsm8k_here_*.jsonl")
    (results,) = tmp_path.rglob("results_*.json")
    logged = [json.loads(line) for line in samples.read_text().splitlines()]
    texts = engine_texts(budget=SAME_BUDGET, max_answer_tokens=99)
    assert [s["resps"] for s in logged if s["filter"] == "strict-match"] == [[[text]] for text in texts]
    assert json.loads(results.read_text())["config"]["s1_jax"]["batch_size"] == PROBLEMS


def test_answers_in_the_harness_s_cache_are_not_decoded_again(evaluate, tmp_path, monkeypatch):
    options = {"gen_kwargs": THINKING, "apply_chat_template": True, "use_cache": str(tmp_path / "cache")}
    first = evaluate("gsm8k_here", **options)
    monkeypatch.setattr(harness, "generate", None)
    assert evaluate("gsm8k_here", **options)[0] == first[0]


def test_multiple_choice(evaluate):
    results, samples = evaluate("arc_here")
    best = [int(np.argmax([response[0][0] for response in s["resps"]])) for s in samples]
    assert results["acc,none"] == np.mean([pick == i % 3 for i, pick in enumerate(best)])
    assert all(response[0][0] < 0 for s in samples for response in s["resps"])
