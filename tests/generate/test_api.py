"""`s1_jax.load_model`: logits beside transformers', and records from Python."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import s1_jax
from s1_jax import api
from s1_jax.decoding.host.slots import rows_at_a_time
from s1_jax.errors import UserError
from s1_jax.runtime.compilation import CompilationWatch
from tests.generate.command import FIELDS, IM_END, V

TOLERANCE = 1e-4  # of the largest logit: float32 through every layer, sums in another order


def test_logits_with_padding_on_either_side(model, reference):
    ids = np.random.default_rng(0).integers(0, 259, (3, 20))
    lengths = np.array([20, 9, 1])
    for mask in (None, np.arange(20) < lengths[:, None], np.arange(20) >= 20 - lengths[:, None]):
        real = np.ones_like(ids) if mask is None else mask.astype(np.int64)
        mine = model.logits(ids.tolist(), None if mask is None else real.tolist())
        assert mine.dtype == np.float32 and mine.shape == (3, 20, V)
        with torch.no_grad():
            theirs = reference(torch.tensor(ids), attention_mask=torch.tensor(real)).logits.numpy()
        assert np.abs(mine - theirs)[real == 1].max() <= TOLERANCE * np.abs(theirs).max()


def test_logits_of_many_sizes_are_few_programs(folder, reference):
    """Padding with rows and tokens that mean nothing changes no logit, whatever padding there is already."""
    model = s1_jax.load_model(str(folder))  # with no program yet
    rng = np.random.default_rng(1)
    shapes = [(1, 1), (1, 2), (1, 16), (1, 17), (2, 31), (3, 5), (3, 20), (4, 33), (2, 100), (1, 127), (1, 128)]
    for B, T in shapes:
        ids, lengths = rng.integers(0, 259, (B, T)), rng.integers(1, T + 1, (B, 1))
        for mask in (np.arange(T) < lengths, np.arange(T) >= T - lengths):
            mine = model.logits(ids, mask)
            alone = np.asarray(model._logits(ids.astype(np.int32), mask.astype(np.int32))) if T > 99 else mine
            with torch.no_grad():
                theirs = reference(torch.tensor(ids), attention_mask=torch.tensor(mask.astype(np.int64))).logits.numpy()
            assert mine.shape == (B, T, V) and mine.base is None, "or it keeps the padding's logits alive"
            assert np.abs(mine - theirs)[mask].max() <= TOLERANCE * np.abs(theirs).max()
            # the sums of attention have other blocks
            assert np.abs(mine - alone)[mask].max() <= TOLERANCE / 10 * np.abs(theirs).max()
    with CompilationWatch() as watch:
        again = s1_jax.load_model(str(folder))
        before = watch.num_compiled
        for B, T in shapes:
            again.logits(np.zeros((B, T), int))
    # tokens of 16, 32, 64, 128; rows of 1, 2, 4
    assert again._logits.num_compiled == len({(1, 16), (1, 32), (2, 32), (4, 16), (4, 32), (4, 64), (2, 128), (1, 128)})
    assert watch.num_compiled - before == again._logits.num_compiled
    assert again.logits(np.zeros((0, 3), int)).shape == (0, 3, V) and again.logits(np.zeros((2, 0), int)).size == 0


def test_logits_refuses_what_it_cannot_read(model):
    for ids, mask in (([1, 2], None), ([[0.5]], None), ([[V]], None), ([[-1]], None), ([[1, 2]], [[1]])):
        with pytest.raises(UserError, match=r"token_ids|attention_mask"):
            model.logits(ids, mask)


def test_generate_takes_texts_and_ids(model):
    text, ids = model.generate(["hi", [1, 2, 3]], budget={"max_thinking_tokens": 5}, max_answer_tokens=3)
    assert model.tokenizer.decode(text["prompt_token_ids"]) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert ids["prompt_token_ids"] == [1, 2, 3]
    assert set(FIELDS) <= set(text)
    assert model.generate([text["prompt_token_ids"]], {"max_thinking_tokens": 5}, max_answer_tokens=3) == [text]
    assert model.generate([]) == []
    assert model.config.max_position_embeddings == 128


@pytest.mark.parametrize("max_answer_tokens", [0, 1, 16, 64])
def test_without_forcing_max_answer_tokens_bounds_all(model, max_answer_tokens):
    free = {"forcing": False}
    (record,) = model.generate(["hi"], budget=free, max_answer_tokens=max_answer_tokens)
    assert record["num_thinking_tokens"] + record["num_answer_tokens"] <= max_answer_tokens
    assert record["max_new_tokens"] == max_answer_tokens
    (unlimited,) = model.generate(["hi"], budget=free)
    assert "max_new_tokens" not in unlimited and unlimited["thinking_token_ids"][:64] == (
        record["thinking_token_ids"] + unlimited["thinking_token_ids"][len(record["thinking_token_ids"]) : 64]
    )
    (each,) = model.generate(["hi"], budget=free | {"max_thinking_tokens": 2}, max_answer_tokens=max_answer_tokens)
    assert each["num_thinking_tokens"] <= 2 and each["num_answer_tokens"] <= max_answer_tokens


def test_without_thinking_there_is_an_answer_alone(model, reference):
    (record,) = model.generate(["hi"], max_answer_tokens=9, thinking=False)
    prompt = record["prompt_token_ids"]
    assert model.tokenizer.decode(prompt).endswith("<|im_start|>assistant\n")
    with torch.no_grad():
        theirs = reference.generate(
            torch.tensor([prompt]),
            max_new_tokens=9,
            do_sample=False,
            eos_token_id=[256, IM_END],
            pad_token_id=256,
            suppress_tokens=list(range(259, V)),
        )[0, len(prompt) :].tolist()
    assert record["text"] == model.tokenizer.decode(theirs) and record["thinking"] is False
    assert (record["num_thinking_tokens"], record["end"]) == (0, "none")
    assert model.generate([prompt], max_answer_tokens=9, thinking=False) == [record]
    assert model.generate(["hi"], {}, max_answer_tokens=9, thinking=False) == [record]
    for name, value in {"max_thinking_tokens": 3, "forcing": False, "num_ignore": 1, "ignore_string": ""}.items():
        with pytest.raises(UserError, match=f"prompt 0: without thinking there is no budget; leave out {name}"):
            model.generate(["hi"], {name: value}, thinking=False)


def test_few_batch_sizes_are_compiled():
    assert [rows_at_a_time(8, requests) for requests in (0, 1, 2, 3, 4, 5, 8, 9, 100)] == [1, 1, 2, 4, 4, 8, 8, 8, 8]
    assert [rows_at_a_time(6, requests) for requests in (3, 5, 6)] == [4, 6, 6] and rows_at_a_time(0, 3) == 0


def test_generate_samples_by_seed(model):
    def texts(**options):
        records = model.generate(["hi", "ho"], sampling={"temperature": 1.0}, max_answer_tokens=3, **options)
        return [record["text"] for record in records]

    assert texts() == texts() == texts(seed=0) == texts(batch_size=1)
    assert texts() != texts(seed=1)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"max_thinking_token": 3}, "budget: unknown field 'max_thinking_token'; did you mean 'max_thinking_tokens'"),
        ({"max_thinking_tokens": "3"}, "budget: max_thinking_tokens is '3'; it must be a whole number from 0"),
        ({"max_thinking_tokens": True}, "budget: max_thinking_tokens is True; it must be a whole number from 0"),
        ({"num_ignore": None}, "budget: num_ignore is None; it must be a whole number from 0"),
        ({"num_ignore": -1}, "budget: num_ignore is -1; it must be a whole number from 0"),
        (
            {"ignore_string": ["a", 1]},
            r"budget: ignore_string is \['a', 1\]; it must be a string or a tuple, each a string",
        ),
        ({"min_thinking_tokens": 5, "max_thinking_tokens": 4}, "budget: min_thinking_tokens 5 is above"),
        ({"ignore_string": "x" * 17}, "the longest allowed"),
    ],
)
def test_a_budget_that_is_wrong(model, budget, message):
    with pytest.raises(UserError, match=message):
        model.generate(["hi"], budget=budget)


def test_the_public_names_are_there_and_cost_nothing_before_they_are_used():
    for name in s1_jax.__all__:
        assert getattr(s1_jax, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="has no attribute 'load_models'"):
        s1_jax.load_models  # noqa: B018
    lazy = "import sys, s1_jax; assert 'jax' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", lazy], check=True)
