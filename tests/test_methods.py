"""Searches through `python -m s1_jax.evaluate`: settings beside the grid, records, going on, table and figure."""

from __future__ import annotations

import json

import jax
import pytest

from s1_jax import evaluate, grade
from s1_jax.checkpoints import hf_reward
from s1_jax.config import SearchConfig, SettingConfig
from s1_jax.errors import UserError
from s1_jax.evaluation import decode
from s1_jax.evaluation.settings import sweep_settings
from s1_jax.model.reward import REWARD_MODELS, init_params
from s1_jax.records.setting import record_key
from s1_jax.search import verifiers
from tests.records.json_schema import assert_records
from tests.tokenizer import SPECIALS, byte_tokenizer

CONFIG = """
from s1_jax.config import *

def get_config():
    drawn, options = SamplingConfig(temperature=1.0), dict(width=3, problems_at_a_time=2)
    votes = SearchConfig(vote="majority", **options)
    extra = (
        SettingConfig(sampling=drawn, search=votes),
        SettingConfig(BudgetConfig(num_ignore=1, max_thinking_tokens=12), sampling=drawn, search=votes),
        SettingConfig(sampling=drawn, search=SearchConfig(**options), reward="outcome"),
        *(
            SettingConfig(BudgetConfig(max_thinking_tokens=12), drawn, search=search, reward="process")
            for search in (SearchConfig(name, branch=3, **options) for name in ("beam", "dvts", "rebase", "mcts"))
        ),
    )
    return EvaluateConfig(
        task=TaskConfig("jsonl"), sweep=SweepConfig((12,), extra=extra), steps=StepConfig("7", max_step_tokens=5),
        max_model_len=96, max_answer_tokens=4, batch_size=8,
    )
"""
PROBLEMS, SETTINGS = 3, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """A policy, two reward models with its tokenizer, three problems, and the config."""
    folder = tmp_path_factory.mktemp("methods")
    tokenizer = byte_tokenizer((*SPECIALS, "<extra_0>"))
    tiny = tiny_model(vocab_size=len(tokenizer), tie_word_embeddings=True, num_hidden_layers=1)
    tiny.torch_model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name, architecture in (
        ("process", "Qwen2ForProcessRewardModel"),
        ("outcome", "Qwen2ForSequenceClassification"),
    ):
        reward = REWARD_MODELS[architecture]
        params = init_params(tiny.config, reward, jax.random.key(1))
        hf_reward.save_params(folder / name, tiny.config, reward, params, tokenizer_from=folder / "model")
    rows = [{"id": i, "problem": f"{i}+{i}=?", "answer": 2 * i} for i in range(PROBLEMS)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.py").write_text(CONFIG)
    return folder


def arguments(folder, run_dir, *more):
    rewards = [part for kind in ("process", "outcome") for part in (f"--rewards.{kind}", str(folder / kind))]
    places = ["--model.path", str(folder / "model"), "--task.path", str(folder / "problems.jsonl")]
    return [str(folder / "config.py"), *places, *rewards, "--run-dir", str(run_dir), *more]


def records_in(run_dir):
    return [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(folder):
    """A run_dir in which every method is done; its first start was stopped half-way."""
    run_dir, real, made = folder / "run", decode.graded, []

    def stopped(*asked):
        if len(made) == PROBLEMS * SETTINGS // 2:
            raise KeyboardInterrupt
        made.append(asked)
        return real(*asked)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(decode, "graded", stopped)
        evaluate.main(arguments(folder, run_dir))
    assert len(records_in(run_dir)) == PROBLEMS * SETTINGS // 2
    evaluate.main(arguments(folder, run_dir))
    return run_dir


def test_every_method_has_a_record_of_every_problem(finished):
    records = records_in(finished)
    assert len({record_key(record) for record in records}) == len(records) == PROBLEMS * SETTINGS
    assert_records(records)
    searched = [record for record in records if "method" in record]
    assert {record["method"] for record in searched} == {"best_of_n", "beam", "dvts", "rebase", "mcts"}
    for record in searched:
        assert record["num_thinking_tokens"] + record["num_answer_tokens"] <= record["generated_tokens"]
        assert record["num_thinking_tokens"] <= record["longest_path_tokens"]
        assert (record["reward_tokens"] > 0) == (record["reward"] is not None)
        assert record["extracted_answer"] in [answer for answer, _ in record["leaves"]] or not record["leaves"]
    assert all(len(record["leaves"]) == 3 for record in searched if record["method"] == "best_of_n")
    before = (finished / "records.jsonl").read_bytes()
    grade.main([str(finished)])
    assert (finished / "records.jsonl").read_bytes() == before, "the rules say the same, in fields of the same order"


def test_reward_models_lie_on_the_policys_mesh(folder, tmp_path, monkeypatch):
    devices = []

    class Seen(verifiers.RewardScorer):
        def __init__(self, config, reward, params, *others, **options):
            devices.append({len(leaf.sharding.device_set) for leaf in jax.tree.leaves(params)})
            raise KeyboardInterrupt

    monkeypatch.setattr(verifiers, "RewardScorer", Seen)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(arguments(folder, tmp_path))
    assert devices == [{jax.device_count()}] != [{1}]


@pytest.mark.slow
def test_another_mesh_gives_the_same_records(folder, finished, tmp_path):
    evaluate.main(arguments(folder, tmp_path, "--mesh.fsdp", "4", "--mesh.tensor", "2"))

    def untimed(record):
        return {name: value for name, value in record.items() if name != "leaves" and not name.endswith("seconds")}

    def by_key(run_dir):
        return {record_key(record): untimed(record) for record in records_in(run_dir)}

    assert by_key(tmp_path) == by_key(finished)


def test_the_report_compares_them(finished, folder, capsys):
    evaluate.main(arguments(folder, finished))
    said = capsys.readouterr().out
    assert f"{PROBLEMS * SETTINGS} of {PROBLEMS * SETTINGS} records done" in said
    for name in ("REBASE", "MCTS", "DVTS", "beam search", "weighted majority, outcome", "1 x Wait, T 1"):
        assert name in said
    assert (finished / "methods.png").read_bytes().startswith(b"\x89PNG") and (finished / "methods.svg").exists()
    runs = json.loads((finished / "summary.json").read_text())["runs"]
    assert len(runs) == SETTINGS and sum(run["setting"]["search"] is not None for run in runs) == SETTINGS - 1


def test_methods_of_the_command_line_are_crossed_with_budgets_and_widths(folder, tmp_path):
    asked = ["--sweep.methods", "rebase", "best_of_n", "--sweep.widths", "2", "4", "--sampling.temperature", "1"]
    given = arguments(folder, tmp_path, *asked, "--sweep.max-thinking-tokens", "4", "8", "--search.vote", "best")
    config = evaluate.parse_with_file(evaluate.EvaluateConfig, given, "evaluate")
    found = [s for s in sweep_settings(config) if s.search and s not in config.sweep.extra]
    assert {
        (s.search.method, s.search.width, s.budget.max_thinking_tokens, s.search.vote, s.reward) for s in found
    } == {
        (method, width, budget, "best", "process")
        for method in ("rebase", "best_of_n")
        for width in (2, 4)
        for budget in (4, 8)
    }


@pytest.mark.parametrize(
    "change,message",
    [
        (["--sweep.methods", "rebase"], "needs forcing, one try and a temperature above 0"),
        (["--rewards.process", "none"], "no folder none"),
        (["--rewards.outcome", "PROCESS"], "rewards.outcome: .* scores steps"),
        (["--rewards.slots", "4"], "rewards.batch_size 16 is above rewards.slots 4"),
        (["--steps.max-step-tokens", "0"], "max_step_tokens is 0; it must be a whole number from 1"),
    ],
)
def test_mistakes_are_named(folder, tmp_path, change, message):
    change = [str(folder / "process") if word == "PROCESS" else word for word in change]
    with pytest.raises(UserError, match=message):
        evaluate.main(arguments(folder, tmp_path / "run", *change))


def test_a_search_without_what_it_needs_is_refused():
    drawn = SettingConfig().sampling.__class__(temperature=1.0)
    with pytest.raises(UserError, match="search.method beam needs a process reward model"):
        SettingConfig(sampling=drawn, search=SearchConfig("beam"), reward="outcome")


def test_other_reward_models_are_not_mixed_in(folder, finished):
    with pytest.raises(UserError, match=r"contains other records \(rewards.process was"):
        evaluate.main(arguments(folder, finished, "--rewards.process", str(folder / "outcome")))
