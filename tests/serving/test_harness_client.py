"""Programs of others and of this project that speak to an endpoint: lm-evaluation-harness, the judge, curation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from s1_jax import grade
from s1_jax.config import EvaluateConfig, TaskConfig
from s1_jax.config.curate import EndpointConfig
from s1_jax.curation.answers import ask_all
from s1_jax.records.lines import read_records, record_line
from s1_jax.runtime.cli import to_json
from s1_jax.runtime.progress import progress_bar
from s1_jax.tasks import judge
from tests.reporting.made_up import record
from tests.runs import BASE
from tests.serving.running import CHAT, KEY, KEY_VARIABLE, MAX_MODEL_LEN, NAME, TEXT, chat, question

TOLERANCE = 1e-4  # relative, of a log-likelihood: float32, the prompt read in pieces or at once
PROBLEMS = [question(steps, start)[0]["content"] for start, steps in ((7, "a+2"), (55, "a-9 b+1"), (31, "c+7"))]
CHOICES = ["\na 07+2=09\n", "\nSo 81.", " nothing of the kind"]
ENDED = "<|im_start|>answer\nAnswer:"  # with a number after it the model ends its turn
FAST = 10**6  # requests a minute: no pause between them


@pytest.fixture
def harness(tmp_path, monkeypatch, server, client):
    """`harness(model, task)`: results and samples of a task made here, by a model of the harness."""
    pytest.importorskip("lm_eval", reason="needs lm_eval: pip install 's1_jax[lm-eval]'")
    import lm_eval
    from lm_eval.tasks import TaskManager

    from s1_jax import lm_eval as command

    command.register()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    written = client.completions.create(model=NAME, prompt=PROBLEMS[0], max_tokens=8, temperature=0).choices[0].text
    choices = [[written, *CHOICES[1:]], CHOICES, CHOICES]
    rows = [{"question": problem, "choices": choices[i], "best": i} for i, problem in enumerate(PROBLEMS)]
    rows += [{"question": ENDED, "choices": [" 8", " 87", " 4"], "best": 1}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = f"dataset_path: json\ndataset_kwargs:\n  data_files: {{test: {tmp_path}/rows.jsonl}}\ntest_split: test\n"
    common += 'doc_to_text: "{{question}}"\n'
    (tmp_path / "picks.yaml").write_text(
        f'task: picks\n{common}output_type: multiple_choice\ndoc_to_choice: "{{{{choices}}}}"\ntarget_delimiter: ""\n'
        'doc_to_target: "{{best}}"\nmetric_list:\n  - metric: acc\n'
    )
    (tmp_path / "texts.yaml").write_text(
        f'task: texts\n{common}output_type: generate_until\ndoc_to_target: "{{{{best}}}}"\n'
        "generation_kwargs: {until: [], do_sample: false}\nmetric_list:\n  - metric: exact_match\n"
    )

    def evaluate(model, task, arguments, **options):
        arguments |= {"max_length": MAX_MODEL_LEN, "max_retries": 1} if model != "s1_jax" else {}
        manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
        found = lm_eval.simple_evaluate(model, arguments, [task], task_manager=manager, bootstrap_iters=0, **options)
        return found["results"][task], found["samples"][task]

    return evaluate


def remote(server, path, **more):
    return {"model": NAME, "base_url": f"{server.url}{path}"} | more


@pytest.mark.parametrize("more", [{}, {"num_concurrent": 4, "batch_size": 3}, {"tokenized_requests": False}], ids=str)
def test_multiple_choice_by_echo(harness, server, more):
    here = {"pretrained": str(BASE), "batch_size": 4}
    there = remote(server, TEXT, tokenizer=str(BASE), tokenizer_backend="huggingface", **more)
    mine, theirs = harness("s1_jax", "picks", here), harness("local-completions", "picks", there)
    assert mine[0]["acc,none"] == theirs[0]["acc,none"]
    scored = [[[pair[0] for pair in sample["resps"]] for sample in samples] for _, samples in (mine, theirs)]
    likelihoods, greedy = (
        [np.array([[pair[i] for pair in sample] for sample in samples], float) for samples in scored] for i in (0, 1)
    )
    np.testing.assert_allclose(likelihoods[0], likelihoods[1], rtol=TOLERANCE)
    assert np.array_equal(*greedy) and set(greedy[0].flat) == {0.0, 1.0}


def test_texts_of_a_chat(harness, server, client):
    there = remote(server, CHAT, max_gen_toks=100)
    _, samples = harness("local-chat-completions", "texts", there, apply_chat_template=True)
    for problem, sample in zip(PROBLEMS, samples, strict=False):
        expected = chat(client, [{"role": "user", "content": problem}], max_tokens=100).choices[0].message.content
        assert sample["resps"] == [[expected]] and expected


def test_a_budget_of_the_harness(harness, server, client):
    there = remote(server, CHAT, max_gen_toks=100, num_concurrent=2)
    keywords = {"gen_kwargs": {"thinking_budget": 9}, "apply_chat_template": True}
    _, samples = harness("local-chat-completions", "texts", there, **keywords)
    for problem, sample in zip(PROBLEMS, samples, strict=False):
        asked = [{"role": "user", "content": problem}]
        assert sample["resps"] == [[chat(client, asked, {"thinking_budget": 9}).choices[0].message.content]]


def test_texts_of_completions(harness, server, client):
    there = remote(server, TEXT, tokenizer=str(BASE), tokenizer_backend="huggingface", max_gen_toks=20)
    _, samples = harness("local-completions", "texts", there)
    for problem, sample in zip(PROBLEMS, samples, strict=False):
        asked = {"model": NAME, "prompt": problem, "max_tokens": 20, "temperature": 0}
        assert sample["resps"] == [[client.completions.create(**asked).choices[0].text]]


def test_the_judge_of_this_project(tmp_path, server, client, monkeypatch):
    """A judge so small decides nothing; its whole replies are kept as they are."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setattr(judge, "PROMPT", "{question} {gold} or {answer}?")  # the model's context is short
    rows = [{"id": i, "problem": problem, "answer": "3 eggs"} for i, problem in enumerate(PROBLEMS)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(
        to_json(EvaluateConfig(task=TaskConfig("jsonl", str(tmp_path / "problems.jsonl"))))
    )
    text = "<|im_start|>think\nhm\n<|im_start|>answer\nAnswer: three eggs<|im_end|>"
    lines = [record_line(record(i, False, 8, gold="3 eggs", text=text)) for i in range(len(rows))]
    (run / "records.jsonl").write_text("".join(lines))
    options = ("--judge.base-url", f"{server.url}/v1", "--judge.model", NAME, "--judge.key-variable", KEY_VARIABLE)
    grade.main([str(run), *options, "--judge.requests-per-minute", str(FAST), "--judge.attempts", "1"])
    assert {one["graded_by"] for one in read_records(run / "records.jsonl")} == {"undecided"}
    kept = {line["reply"] for line in read_records(run / "judge.jsonl")}
    prompts = [judge.judge_prompt(problem, "3 eggs", "three eggs") for problem in PROBLEMS]
    replies = [chat(client, [{"role": "user", "content": prompt}]).choices[0] for prompt in prompts]
    assert kept == {choice.message.content.strip() for choice in replies if choice.finish_reason == "stop"} and kept


def test_answers_for_curation(tmp_path, server, client, monkeypatch):
    """Thinking and answer of a teacher come apart, as they do from a model that is decoded here."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    options = {"key_variable": KEY_VARIABLE, "requests_per_minute": FAST, "attempts": 1, "max_tokens": 100}
    with progress_bar(shown=False) as bar:
        teacher = EndpointConfig(NAME, f"{server.url}/v1", **options)
        answers = list(ask_all(teacher, [*PROBLEMS, "x" * 500], tmp_path / "generate", bar, "teacher"))
    for problem, answer in zip(PROBLEMS, answers, strict=False):
        message = chat(client, [{"role": "user", "content": problem}], max_tokens=100).choices[0].message
        assert (answer.thinking, answer.text) == (message.reasoning_content.strip(), message.content.strip())
        assert answer.error is None and answer.thinking
    assert "status 400" in answers[-1].error and answers[-1].text == ""
    (path,) = (tmp_path / "answers").iterdir()
    kept = read_records(path)
    assert len(kept) == 3 and all(0 < line["tokens_written"] <= 100 and line["tokens_read"] > 20 for line in kept)
