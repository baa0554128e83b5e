"""Ends that a model declares: each ends an answer, and is an end of thinking like the others."""

from __future__ import annotations

import copy
import dataclasses
import json
from functools import cache

import numpy as np
import pytest
import torch
from transformers import Qwen2ForCausalLM

from s1_jax.api import load_model
from s1_jax.checkpoints.stops import declared_stops
from s1_jax.config import BudgetConfig, ModelConfig, SamplingConfig
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.token_ids import ignore_ids, make_markers, start_ids, stop_ids
from s1_jax.decoding.engine import Engine
from s1_jax.errors import UserError
from s1_jax.model.transformer import unstack
from tests.decoding.plain import Words, of_budget, plain_decode
from tests.reference import to_params
from tests.tokenizer import byte_tokenizer

V, MAX_MODEL_LEN, MAX_ANSWER = 264, 160, 5
TOKENIZER = byte_tokenizer()
PROMPT = tuple(TOKENIZER.encode("1+1="))
DECLARED = (64, 145, 208)  # letters: this random model writes them now and then
UNKNOWN = 260  # an id of the vocabulary's padding
BUDGETS = [
    BudgetConfig(minimum, maximum, num_ignore, string, end_bias=bias if maximum else 0.0)
    for minimum, maximum, num_ignore, string, bias in (
        (1, None, 0, "Wait", 0.0),
        (0, None, 0, "Wait", 0.0),
        (1, None, 1, "Wait", 0.0),
        (1, None, 4, "", 0.0),
        (1, 3, 0, "Wait", 0.0),
        (1, 8, 2, "Wait", 0.0),
        (1, 21, 4, ("Hm", "", "no"), 0.0),
        (1, 21, 2, "Wait", 2.0),
        (6, 6, 1, "Wait", 0.0),
        (10, 12, 1, "Wait", 0.0),
        (20, None, 1, "", 0.0),
    )
]
SAMPLED = SamplingConfig(temperature=1.0)


@pytest.fixture(scope="module")
def model(tiny_model):
    reference = copy.deepcopy(tiny_model(1, vocab_size=V, max_position_embeddings=256).torch_model)
    with torch.no_grad():
        reference.lm_head.weight[[256, 257, 258, *DECLARED]] *= 1.7
    return reference, ModelConfig.from_dict(reference.config.to_dict()), to_params(reference)


@pytest.fixture(scope="module")
def make_engine(model):
    _, config, params = model
    sizes = dict(max_model_len=MAX_MODEL_LEN, batch_size=16)
    return lambda stops: Engine(config, unstack(params), TOKENIZER, stops=stops, **sizes)


@pytest.fixture(scope="module")
def engine(make_engine):
    return make_engine((*DECLARED, UNKNOWN))


def test_greedy_decoding_is_the_plain_twins(engine, model):
    @cache
    def score(history):
        with torch.no_grad():
            return model[0](torch.tensor([history])).logits[0, -1].numpy()

    markers = make_markers(TOKENIZER, V)
    answer = TOKENIZER.encode("<|im_start|>answer")
    words = Words(
        ends=frozenset((256, 257, 258, *DECLARED)),
        stops=frozenset((256, 258, *DECLARED)),
        known=frozenset(map(int, np.flatnonzero(markers.is_known))),
        newlines=frozenset(map(int, np.flatnonzero(markers.is_newline))),
        newline=TOKENIZER.encode("\n")[0],
        start=tuple(start_ids(TOKENIZER)),
        natural=tuple(answer),
        forced=(*answer, *TOKENIZER.encode("\nFinal Answer:")),
    )
    requests = [Request(PROMPT, budget, max_answer_tokens=MAX_ANSWER) for budget in BUDGETS]
    drawn, ended = set(), set()
    for budget, record in zip(BUDGETS, engine.run(requests), strict=True):
        plain = plain_decode(
            lambda history: score(tuple(history)),
            words,
            PROMPT,
            max_model_len=MAX_MODEL_LEN,
            max_answer_tokens=MAX_ANSWER,
            **of_budget(budget, ignore_ids(TOKENIZER, budget)),
        )
        fields = ("thinking_token_ids", "answer_token_ids", "end", "answer_end", "ignores_used")
        found = tuple(record[field] for field in fields)
        assert found == (plain.thinking, plain.answer, plain.end, plain.answer_end, plain.ignores_used), budget
        drawn |= {token for _, (token,) in plain.ends_drawn}
        ended.add(record["answer_end"])
        assert record["stop_tokens"] == sorted(["<|endoftext|>", "<|im_end|>", *map(chr_of, DECLARED)])
    assert drawn & set(DECLARED) and "stop" in ended


def chr_of(token):
    return TOKENIZER.decode([token])


def test_sampled_decoding_ends_where_the_same_run_without_them_first_draws_one(engine, make_engine):
    def run(engine, **budget):
        requests = [Request(PROMPT, BudgetConfig(**budget), SAMPLED, sample=i, max_answer_tokens=30) for i in range(24)]
        shared = dict(engine.run_shared(requests))
        alone = list(engine.run(requests))
        assert [shared[i] for i in range(len(alone))] == alone
        return alone

    free, ended = run(make_engine(()), max_thinking_tokens=40), run(engine, max_thinking_tokens=40)
    cut = 0
    for one, other in zip(free, ended, strict=True):
        places = [i for i, token in enumerate(one["thinking_token_ids"]) if token in DECLARED and i > 0]
        if places:
            assert (other["thinking_token_ids"], other["end"]) == (one["thinking_token_ids"][: places[0]], "natural")
            cut += 1
        elif one["thinking_token_ids"][:1] not in [[token] for token in DECLARED]:
            assert other["thinking_token_ids"] == one["thinking_token_ids"]
    assert cut > 3
    again = run(engine, max_thinking_tokens=40, num_ignore=1)
    for one, other in zip(ended, again, strict=True):
        if one["end"] == "natural" and one["num_thinking_tokens"] <= 36:
            before = one["thinking_token_ids"]
            assert other["ignores_used"] == 1
            assert other["thinking_token_ids"][: len(before) + 4] == [*before, *TOKENIZER.encode("Wait")]
    for record in (*ended, *again):
        drawn = {*record["thinking_token_ids"], *record["answer_token_ids"]} - set(TOKENIZER.encode("Wait"))
        assert not set(DECLARED) & drawn


def test_transformers_stops_at_the_same_ends(model, tmp_path):
    reference = model[0]
    reference.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    declared = [*DECLARED[:2], 256, 258]  # the tokenizer's own too, which end texts here in any case
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": declared}))
    theirs = Qwen2ForCausalLM.from_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.stops == tuple(declared)
    prompts = [TOKENIZER.encode(text) for text in ("1+1=", "Say a word!", "so", "x", "1234", "y?")]
    sizes = dict(max_model_len=MAX_MODEL_LEN, max_answer_tokens=MAX_MODEL_LEN, batch_size=16)
    ends = set()
    for prompt, record in zip(prompts, ours.generate(prompts, {"forcing": False}, **sizes), strict=True):
        start = [*prompt, *start_ids(TOKENIZER)]
        with torch.no_grad():
            out = theirs.generate(
                torch.tensor([start]),
                max_new_tokens=MAX_MODEL_LEN - len(start),
                do_sample=False,
                pad_token_id=0,
                suppress_tokens=list(range(259, V)),  # ids that the tokenizer does not know
            )[0, len(start) :].tolist()
        assert record["text"] == TOKENIZER.decode([*start_ids(TOKENIZER), *out])
        ends.add(out[-1])
    assert ends & set(DECLARED[:2]), ends


@pytest.mark.parametrize(
    ("generation", "config", "found"),
    [
        ({"eos_token_id": [7, 9]}, {"eos_token_id": 5}, (7, 9)),
        ({"eos_token_id": 7}, {}, (7,)),
        ({"eos_token_id": [9, 7, 9]}, {}, (7, 9)),
        ({"eos_token_id": 0, "pad_token_id": 0}, {}, (0,)),
        (None, {"eos_token_id": [7, 9]}, (7, 9)),
        (None, {"eos_token_id": 7}, (7,)),
        (None, {}, ()),
        ({}, {"eos_token_id": 5}, ()),
        ({"eos_token_id": None}, {"eos_token_id": 5}, ()),
        ({"eos_token_id": []}, {}, ()),
        # no model can draw these: transformers takes them in silence
        ({"eos_token_id": [7, 99]}, {}, (7,)),
        ({"eos_token_id": -1}, {}, ()),
        ({"eos_token_id": 10**30}, {}, ()),
        *(
            ({"eos_token_id": wrong}, {}, "eos_token_id is")
            for wrong in ("7", "<|im_end|>", True, [True], 7.0, [[7]], [7, None], {"7": 1}, "")
        ),
        (None, {"eos_token_id": "7"}, r"config\.json: eos_token_id is '7'"),
        ([7], {}, r"generation_config\.json"),
        ("not json", {}, r"generation_config\.json"),
    ],
)
def test_what_a_checkpoint_declares(tmp_path, generation, config, found):
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        text = "{" if generation == "not json" else json.dumps(generation)
        (tmp_path / "generation_config.json").write_text(text)
    if isinstance(found, tuple):
        assert declared_stops(tmp_path, 32) == found
    else:
        with pytest.raises(UserError, match=found) as caught:
            declared_stops(tmp_path, 32)
        assert "\n" not in str(caught.value)


def test_stops_come_from_all_who_name_them():
    tokenizer = copy.deepcopy(byte_tokenizer((*("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<e>")))
    assert stop_ids(tokenizer) == [256, 258]
    tokenizer.eos_token = "<e>"
    assert stop_ids(tokenizer) == [256, 258, 259]
    assert stop_ids(tokenizer, (7, 258)) == [7, 256, 258, 259]
    assert stop_ids(tokenizer, (7, 258), 258) == [7, 256]


def test_a_prompt_that_ends_in_the_start_marker_gets_no_second_one(engine):
    request = Request(PROMPT, BudgetConfig(max_thinking_tokens=6), max_answer_tokens=3)
    opened = dataclasses.replace(request, prompt_token_ids=(*PROMPT, *start_ids(TOKENIZER)))
    with_newline = dataclasses.replace(opened, prompt_token_ids=(*opened.prompt_token_ids, *TOKENIZER.encode("\n")))
    alone, same, newline = engine.run([request, opened, with_newline])
    for field in ("thinking_token_ids", "answer_token_ids", "text", "end"):
        assert alone[field] == same[field]
    assert newline["text"].startswith("<|im_start|>think\n") and newline["text"].count("think") == 1
    assert newline["prompt_token_ids"] == list(with_newline.prompt_token_ids)


def test_each_rows_last_token_before_thinking_is_its_own(engine):
    newline = TOKENIZER.encode("\n")
    prompts = PROMPT, (*PROMPT, *start_ids(TOKENIZER)), (*PROMPT, *start_ids(TOKENIZER), *newline)
    runs = engine.runs([Request(prompt) for prompt in prompts])
    assert runs.prompts[0] == runs.prompts[1] == prompts[1] and runs.prompts[2] == prompts[2]
    assert list(runs.budget.start_token) == [start_ids(TOKENIZER)[-1]] * 2 + newline
