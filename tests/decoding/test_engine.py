"""The engine with a random model: against transformers stepped in plain Python, and against itself in other company."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np
import pytest
import torch

from s1_jax.config import BudgetConfig, FormatConfig, MeshConfig, SamplingConfig
from s1_jax.decoding.core.budget import NO_LIMIT
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.token_ids import ignore_ids
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.host import slots
from s1_jax.model.transformer import param_axes, unstack
from s1_jax.sharding import DECODE_RULES, Layout, make_mesh
from tests.decoding.byte_model import (
    MAX_ANSWER,
    MAX_MODEL_LEN,
    PROMPTS,
    SAMPLED,
    TOKENIZER,
    V,
    budgets,
    generated,
    scores_of,
    words_of,
)
from tests.decoding.plain import of_budget, plain_decode, plain_free, reference_rounds

NEAR_TIE = 1e-4  # of the largest score: two float32 implementations may then choose differently
TIES_PER_ROW = 1e-3  # how often that may happen


def assert_same_tokens(records, references, words):
    """Equal, but for rows that part where the two best scores were as good as equal; those are counted."""
    ties = 0
    for record, plain in zip(records, references, strict=True):
        fields = ("thinking_token_ids", "answer_token_ids", "end", "answer_end", "ignores_used")
        mine = tuple(record[field] for field in fields)
        if mine == (plain.thinking, plain.answer, plain.end, plain.answer_end, plain.ignores_used):
            continue
        pairs = zip(generated(record, words), plain.generated, strict=False)
        parted = next((i for i, (mine, theirs) in enumerate(pairs) if mine != theirs), None)
        assert parted is not None and plain.gaps.get(parted, 1.0) <= NEAR_TIE, (record, plain)
        ties += 1
    assert ties <= TIES_PER_ROW * len(references)


def replay(scores, words, cases):
    return [
        plain_decode(
            scores,
            words,
            prompt,
            max_model_len=MAX_MODEL_LEN,
            max_answer_tokens=MAX_ANSWER,
            **of_budget(budget, ignore_ids(TOKENIZER, budget)),
        )
        for prompt, budget in cases
    ]


@pytest.mark.parametrize("model", ["qwen2", "qwen3", "llama"], indirect=True)
def test_replay_of_the_contract_with_transformers(model, engine, scores, words):
    cases = [(prompt, budget) for budget in budgets() for prompt in PROMPTS]
    records = list(engine.run([Request(prompt, budget, max_answer_tokens=MAX_ANSWER) for prompt, budget in cases]))
    references = replay(scores, words, cases)
    assert_same_tokens(records, references, words)
    assert {plain.end for plain in references} == {"natural", "forced", "context"}
    assert {plain.answer_end for plain in references} == {"stop", "length"}
    assert max(plain.ignores_used for plain in references) == 4


@pytest.mark.parametrize("draft_tokens", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_replay_with_end_markers_of_several_tokens_and_a_bias(model, draft_tokens):
    """What the model itself writes at some places of a long trace is made the end."""
    reference, config, params = model
    sizes = dict(max_model_len=MAX_MODEL_LEN, batch_size=16)
    format = FormatConfig("<t>", "<|im_start|>a", "!", ("<|im_end|>",))
    writer = Engine(config, unstack(params), TOKENIZER, format=format, **sizes)
    (trace,) = writer.run([Request(PROMPTS[0], BudgetConfig(100, 100), max_answer_tokens=1)])
    ids = trace["thinking_token_ids"]
    pieces = [[ids[i : i + n] for i in range(len(ids) - n) if max(ids[i : i + n]) < 94] for n in (2, 3)]  # ASCII
    ends = [TOKENIZER.decode(piece) for some in pieces for piece in (some[0], some[-1])]
    format = dataclasses.replace(format, end_markers=("<|im_end|>", *ends))
    engine = Engine(config, unstack(params), TOKENIZER, format=format, draft_tokens=draft_tokens, **sizes)
    biased = [dataclasses.replace(budget, end_bias=1.5) for budget in budgets() if budget.max_thinking_tokens]
    cases = [(PROMPTS[0], budget) for budget in [*budgets(), *biased][::3]]
    records = list(engine.run([Request(prompt, budget, max_answer_tokens=MAX_ANSWER) for prompt, budget in cases]))
    words = words_of(format)
    references = replay(scores_of(reference), words, cases)
    assert_same_tokens(records, references, words)
    assert {len(end) for plain in references for _, end in plain.ends_drawn} >= {1, 2}
    assert {record["format"]["answer_start"] for record in records} == {"<|im_start|>a"}


def test_the_references_rounds_give_the_same_thinking(engine, scores, words):
    """Its end differs: it can stop at exactly the maximum, and it keeps its finish reason after a late cut."""
    cases = list(itertools.product(PROMPTS[:2], (1, 2, 3, 5, 8, 13, 21), (0, 1, 2, 4), ("Wait", "")))
    requests = [
        Request(prompt, BudgetConfig(max_thinking_tokens=n, num_ignore=k, ignore_string=string), max_answer_tokens=1)
        for prompt, n, k, string in cases
    ]
    differing = 0
    for (prompt, n, k, string), record in zip(cases, engine.run(requests), strict=True):
        rounds = reference_rounds(scores, words, prompt, n, k, TOKENIZER.encode(string))
        assert record["thinking_token_ids"] == rounds.thinking
        if {"stop": "natural", "length": "forced"}[rounds.finish] != record["end"]:
            differing += 1
            assert record["end"] == "forced" and rounds.finish == "stop"
            assert rounds.was_cut or len(rounds.thinking) == n
            assert k > 0
    assert 0 < differing < len(cases) // 2


@pytest.mark.parametrize("model", ["qwen2", "qwen3", "llama"], indirect=True)
def test_greedy_without_forcing_equals_transformers_generate(engine, model, words, scores):
    unknown = [i for i in range(V) if i not in words.known]
    for prompt in PROMPTS:
        text = [*prompt, *words.start]
        with torch.no_grad():
            theirs = (
                model[0]
                .generate(
                    torch.tensor([text]),
                    max_new_tokens=MAX_MODEL_LEN - len(text),
                    do_sample=False,
                    eos_token_id=sorted(words.stops),
                    pad_token_id=256,
                    suppress_tokens=unknown,
                )[0, len(text) :]
                .tolist()
            )
        (record,) = engine.run([Request(prompt, BudgetConfig(forcing=False), max_answer_tokens=MAX_MODEL_LEN)])
        assert record["text"] == TOKENIZER.decode([*words.start, *theirs])
        plain = plain_free(scores, words, prompt, max_model_len=MAX_MODEL_LEN, max_answer_tokens=MAX_MODEL_LEN)
        assert plain.generated == theirs
        assert_same_tokens([record], [plain], words)


@pytest.mark.parametrize("draft_tokens", [0, 3])
def test_without_forcing_there_are_limits(model, scores, words, draft_tokens):
    """Of all tokens, or of thinking and answer each; records say which ended the run."""
    _, config, params = model
    sizes = dict(max_model_len=MAX_MODEL_LEN, batch_size=8, draft_tokens=draft_tokens)
    engine = Engine(config, unstack(params), TOKENIZER, **sizes)
    cases = [  # max_answer_tokens, max_thinking_tokens, max_new_tokens; then the limit of all tokens
        *((n, None, None, n) for n in (0, 1, 2, 7, 31, MAX_MODEL_LEN)),
        *((n, maximum, None, None) for n in (0, 3) for maximum in (0, 1, 5, 20, MAX_MODEL_LEN)),
        (None, None, None, None),
        (4, None, 9, 9),
        (4, None, NO_LIMIT, None),
    ]
    asked = [(prompt, case) for prompt in PROMPTS for case in cases]
    requests = [
        Request(prompt, BudgetConfig(max_thinking_tokens=most, forcing=False), max_answer_tokens=n, max_new_tokens=new)
        for prompt, (n, most, new, _) in asked
    ]
    records = list(engine.run(requests))
    references = [
        plain_free(
            *(scores, words, prompt),
            max_model_len=MAX_MODEL_LEN,
            max_answer_tokens=MAX_MODEL_LEN // 4 if n is None else n,
            maximum=most,
            limit=limit,
        )
        for prompt, (n, most, _, limit) in asked
    ]
    found = [(r["thinking_token_ids"], r["answer_token_ids"], r["end"], r["answer_end"]) for r in records]
    assert found == [(plain.thinking, plain.answer, plain.end, plain.answer_end) for plain in references]
    assert [record.get("max_new_tokens") for record in records] == [limit for _, (*_, limit) in asked]
    assert {("length", "length"), ("forced", "none")} <= {(r["end"], r["answer_end"]) for r in records}
    assert [record for _, record in sorted(engine.run_shared(requests), key=lambda one: one[0])] == records


def sampled_requests():
    rng = np.random.default_rng(0)
    for i in range(12):
        yield Request(
            PROMPTS[i % 3],
            BudgetConfig(max_thinking_tokens=int(rng.integers(1, 40)), num_ignore=i % 3),
            SAMPLED if i % 4 else SamplingConfig(),
            problem_id=f"problem {i // 2}",
            sample=i % 2,
            max_answer_tokens=MAX_ANSWER,
        )


def test_a_row_does_not_depend_on_neighbors_place_or_batch_size(engine, model):
    requests = list(sampled_requests())
    together = list(engine.run(requests))
    order = np.random.default_rng(1).permutation(len(requests))
    shuffled = list(engine.run([requests[i] for i in order]))
    assert [shuffled[j] for j in np.argsort(order)] == together
    assert list(engine.run(requests[5:7])) == together[5:7]
    _, config, params = model
    narrow = Engine(config, unstack(params), TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=5)
    assert list(narrow.run(requests)) == together


def test_a_maximum_cuts_a_sampled_run(engine):
    def run(**budget):
        budget = BudgetConfig(num_ignore=2, **budget)
        request = Request(PROMPTS[0], budget, SAMPLED, problem_id="a", max_answer_tokens=2)
        return next(engine.run([request]))["thinking_token_ids"]

    whole = run()
    for maximum in range(0, len(whole) + 1, 4):
        assert run(max_thinking_tokens=maximum) == whole[:maximum]


def test_seed_and_sample_change_what_is_drawn(engine):
    def run(**fields):
        request = Request(PROMPTS[0], BudgetConfig(max_thinking_tokens=20), SAMPLED, max_answer_tokens=2, **fields)
        return next(engine.run([request]))["text"]

    assert run() == run()
    assert len({run(), run(seed=1), run(sample=1), run(problem_id="a")}) == 4


def test_nothing_recompiles(engine, monkeypatch):
    """As long as no new size is met: a drained batch, which would shrink to sizes of its own, keeps its own here."""
    monkeypatch.setattr(slots, "SHRINK", 1)

    def run(minimum, maximum, num_ignore, strings):
        limited = BudgetConfig(minimum, maximum, num_ignore, strings)
        for budget in (BudgetConfig(), limited, BudgetConfig(forcing=False)):
            for sampling, n in itertools.product((SamplingConfig(), SAMPLED), (1, 3, 17)):
                list(engine.run([Request(PROMPTS[0], budget, sampling, max_answer_tokens=n)] * n))
        return engine.num_compiled

    assert run(3, 5, 0, "Wait") == run(7, 9, 3, ("a", ""))


@pytest.mark.slow
def test_the_same_records_on_a_mesh(engine, model):
    _, config, params = model
    requests = [dataclasses.replace(r, prompt_token_ids=PROMPTS[0]) for r in sampled_requests()]
    alone = list(engine.run(requests))
    for sizes in ((4, 2), (8, 1)):
        devices = jax.devices()[: sizes[0] * sizes[1]]
        layout = Layout(make_mesh(MeshConfig(fsdp=sizes[0], tensor=sizes[1]), devices), DECODE_RULES)
        placed = unstack(jax.device_put(params, layout.tree(param_axes(config), params)))
        spread = Engine(config, placed, TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=8, layout=layout)
        assert list(spread.run(requests)) == alone
