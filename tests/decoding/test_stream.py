"""`Engine.stream`: the pieces of a request are those of its record, and none is taken back."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from s1_jax.config import BudgetConfig, FormatConfig, ModelConfig, SamplingConfig
from s1_jax.decoding.core.budget import THOUGHT, Kind
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine, Piece
from s1_jax.errors import UserError
from s1_jax.model.transformer import unstack
from tests.reference import to_params
from tests.tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
PROMPT = tuple(TOKENIZER.encode("1+1="))
FORMAT = FormatConfig("<t>", "<|im_start|>a", "!", ("<|im_end|>",))


@pytest.fixture(scope="module")
def make_engine(tiny_model):
    """`make_engine(**options)`: over a random model that likes to end."""
    reference = copy.deepcopy(tiny_model(1, vocab_size=264, max_position_embeddings=256).torch_model)
    with torch.no_grad():
        reference.lm_head.weight[256:259] *= 1.7
    config, params = ModelConfig.from_dict(reference.config.to_dict()), unstack(to_params(reference))
    return lambda **options: Engine(config, params, TOKENIZER, max_model_len=160, batch_size=4, **options)


@pytest.fixture(scope="module")
def with_long_markers(make_engine):
    """A format whose end markers are two and three tokens that the model writes, and others that begin alike."""
    (trace,) = make_engine(format=FORMAT).run([Request(PROMPT, BudgetConfig(100, 100), max_answer_tokens=1)])
    ids = trace["thinking_token_ids"]
    written = [[ids[i : i + n] for i in range(len(ids) - n) if max(ids[i : i + n]) < 94] for n in (2, 3)]  # ASCII
    ends = [TOKENIZER.decode(piece) for some in written for piece in (some[0], some[-1])]
    begun = [end[:-1] + "~~" for end in ends]
    return dataclasses.replace(FORMAT, end_markers=("<|im_end|>", *dict.fromkeys(ends + begun)))


@pytest.mark.parametrize("draft_tokens", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_pieces_are_the_records_tokens(make_engine, with_long_markers, draft_tokens):
    engine = make_engine(format=with_long_markers, draft_tokens=draft_tokens)
    requests = [
        Request(PROMPT, BudgetConfig(), max_answer_tokens=5),
        Request(PROMPT, BudgetConfig(1, 30, 3, ("Hm", "")), max_answer_tokens=5),
        Request(PROMPT, BudgetConfig(1, 7), max_answer_tokens=5),
        Request(PROMPT, BudgetConfig(1, 60, 4), SamplingConfig(1.0), max_answer_tokens=40, sample=3),
        Request(PROMPT, BudgetConfig(0, 0), max_answer_tokens=0),
        Request(PROMPT, BudgetConfig(forcing=False), max_answer_tokens=60),
        Request(PROMPT, max_answer_tokens=9, thinking=False),
        Request((*PROMPT, *TOKENIZER.encode("<t>")), BudgetConfig(1, 9), max_answer_tokens=3),
    ]
    for request in requests:
        before = engine.decoded_tokens
        *pieces, record = engine.stream(request)
        assert [record] == list(engine.run([request]))
        assert all(isinstance(piece, Piece) for piece in pieces)
        tokens = [token for piece in pieces for token in piece.token_ids]
        assert TOKENIZER.decode(tokens) == record["text"]
        of_kind = [(token, piece.kind) for piece in pieces for token in piece.token_ids]
        assert [token for token, kind in of_kind if kind in THOUGHT] == record["thinking_token_ids"]
        assert [token for token, kind in of_kind if kind == Kind.ANSWER] == record["answer_token_ids"]
        forced = [piece for piece in pieces if piece.forced]
        ours = {Kind.SUFFIX, Kind.IGNORE} if request.budget.forcing else {Kind.SUFFIX}
        assert {piece.kind for piece in forced} <= ours and bool(forced) == request.thinking
        assert (engine.decoded_tokens - before) == 2 * (record["num_thinking_tokens"] + record["num_answer_tokens"])


def test_tokens_come_one_by_one(make_engine):
    """As far as they cannot be the beginning of a marker, here of two tokens."""
    engine = make_engine(format=FORMAT)
    stream = engine.stream(Request(PROMPT, BudgetConfig(20, 20), max_answer_tokens=5))
    assert next(stream) == Piece(tuple(engine.start_ids), Kind.SUFFIX, forced=True)
    pieces = [next(stream) for _ in range(20)]
    assert {(len(piece.token_ids), piece.kind, piece.forced) for piece in pieces} == {(1, Kind.THINKING, False)}
    assert next(stream).forced


def test_what_cannot_be_decoded_is_refused(make_engine):
    with pytest.raises(UserError, match="the prompt is empty"):
        next(make_engine().stream(Request(())))
