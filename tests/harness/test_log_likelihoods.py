"""Log-likelihoods of the harness's model, compared with transformers' and with the harness's own encoding."""

from __future__ import annotations

import copy
import importlib
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from s1_jax.errors import UserError
from tests.tokenizer import byte_tokenizer

pytest.importorskip("lm_eval", reason="needs lm_eval: pip install 's1_jax[lm-eval]'")

from s1_jax.harness.encoding import prefix_id, text_ids
from tests.harness.asking import MAX_LENGTH, TOLERANCE, V, assert_close, greedily, requests


def test_log_likelihoods_are_transformers(lm, reference, plain_score):
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, V, c).tolist(), rng.integers(0, V, n).tolist()) for c, n in rng.integers(1, 60, (30, 2))]
    for context, _ in pairs[:8]:  # and what greedy decoding says
        row = greedily(reference, context, max_new_tokens=5, eos_token_id=None)
        pairs += [(context, row[len(context) :]), (context, [*row[len(context) : -1], 7])]
    mine = lm._loglikelihood_tokens([(None, *pair) for pair in pairs], disable_tqdm=True)
    assert_close(mine, [plain_score(*pair) for pair in pairs])
    assert {greedy for _, greedy in mine[30:]} == {True, False} and all(greedy for _, greedy in mine[30::2])
    assert lm.scorer.num_compiled <= 2  # rows of 64 and of 128 tokens


def test_continuations_of_one_context_and_contexts_that_are_too_long(lm, plain_score):
    """What is computed once for several continuations; a long context loses its beginning, a continuation nothing."""
    context = list(range(100))
    pairs = [(context, [i]) for i in range(250)] + [(context * 2, [1, 2, 3]), (context, list(range(120)))]
    expected = [plain_score(*pair) for pair in pairs[:250]]
    expected += [plain_score((context * 2)[-MAX_LENGTH + 2 :], [1, 2, 3])]
    expected += [plain_score(context[-MAX_LENGTH + 119 :], list(range(120)))]
    assert_close(lm._loglikelihood_tokens([(None, *pair) for pair in pairs], disable_tqdm=True), expected)
    with pytest.raises(UserError, match="129 tokens is longer than max_length 128"):
        lm._loglikelihood_tokens([(None, [1], [1] * 129)])


def test_log_likelihoods_of_texts(lm, plain_score):
    """The space between two words belongs to the second; without a context the end-of-text token is one."""
    encode = lm.tokenizer.encode
    asked = requests("loglikelihood", ("One and", " one"), ("One and ", "one"), ("", "two"))
    mine = lm.loglikelihood(asked, disable_tqdm=True)
    assert_close(
        mine,
        [*[plain_score(encode("One and"), encode(" one"))] * 2, plain_score(encode("<|endoftext|>"), encode("two"))],
    )


def test_a_rolling_log_likelihood_sees_each_token_once(lm, plain_score):
    texts = ["", "ab", "x" * 300 + "yz" * 40]
    mine = lm.loglikelihood_rolling(requests("loglikelihood_rolling", *[(text,) for text in texts]), disable_tqdm=True)
    ids = [*lm.tokenizer.encode("<|endoftext|>"), *lm.tokenizer.encode(texts[2])]
    expected = [0.0, plain_score(ids[:1], lm.tokenizer.encode("ab"))[0], 0.0]
    for first in range(1, len(ids), MAX_LENGTH):
        last = min(first + MAX_LENGTH, len(ids))
        expected[2] += plain_score(ids[last - 1 - MAX_LENGTH if first > 1 else 0 : first], ids[first:last])[0]
    np.testing.assert_allclose(mine, expected, rtol=TOLERANCE)


@pytest.fixture(scope="module")
def hflm():
    """The harness's own class for Hugging Face's models, of which nothing is run; it wants packages for that."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("accelerate", "accelerate.utils", "peft"):
            patch.setitem(sys.modules, name, MagicMock(__spec__=None))
        return importlib.import_module("lm_eval.models.huggingface").HFLM


BEGINS = "<|endoftext|>"


@pytest.mark.parametrize("adds", [False, True], ids=["adds nothing", "adds bos"])
@pytest.mark.parametrize("bos", [None, BEGINS, "<|im_start|>", "!"])  # the last is token 0
def test_texts_become_the_ids_of_the_harness_s_own_model(hflm, bos, adds):
    tokenizer = copy.deepcopy(byte_tokenizer())
    tokenizer.bos_token, tokenizer.eos_token = bos, "<|im_end|>"
    if adds and bos:
        single = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)])
        tokenizer.backend_tokenizer.post_processor = single
    theirs = SimpleNamespace(tokenizer=tokenizer, add_bos_token=None, custom_prefix_token_id=None)
    theirs.prefix_token_id = hflm.prefix_token_id.fget(theirs)
    assert prefix_id(tokenizer) == theirs.prefix_token_id
    assert prefix_id(tokenizer) == (tokenizer.eos_token_id if bos is None else tokenizer.bos_token_id)
    for text in ("", "one", " one", f"{BEGINS}one", "<|im_start|>user\nhi", "<|im_end|>", f"one {BEGINS}"):
        for special in (None, False, True):
            assert text_ids(tokenizer, text, special) == hflm.tok_encode(theirs, text, special), (text, special)
    assert (text_ids(tokenizer, "one")[0] == tokenizer.bos_token_id) == (adds and bos is not None)


def test_without_a_context_a_text_follows_the_token_that_begins_texts(lm, plain_score, monkeypatch):
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.bos_token, tokenizer.eos_token = "<|im_start|>", "<|im_end|>"
    monkeypatch.setattr(lm, "tokenizer", tokenizer)
    begin, two = tokenizer.encode("<|im_start|>"), tokenizer.encode("two")
    assert_close(lm.loglikelihood(requests("loglikelihood", ("", "two")), disable_tqdm=True), [plain_score(begin, two)])
    (rolling,) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", ("two",)), disable_tqdm=True)
    np.testing.assert_allclose(rolling, plain_score(begin, two)[0], rtol=TOLERANCE)
