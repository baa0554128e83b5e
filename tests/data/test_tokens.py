"""Too long examples, counts, and a held-out share that shares no question with training."""

import json

import numpy as np
import pytest

from s1_jax.config import DataConfig
from s1_jax.data import chat
from s1_jax.data.tokens import load_corpus, split_held_out
from s1_jax.errors import UserError


@pytest.fixture
def source(tmp_path):
    rows = [{"question": f"q{i % 10}", "thinking": "a" * (10 + 40 * (i == 3)), "answer": str(i)} for i in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_examples_are_those_of_the_chat_format(source, tiny_tokenizer):
    corpus, counts = load_corpus(DataConfig(path=source), tiny_tokenizer)
    assert len(corpus) == counts.examples == 40
    expected = chat.encode_example(tiny_tokenizer, "q3", chat.response_text("a" * 50, "3"))
    np.testing.assert_array_equal(corpus.examples[3].token_ids, expected.token_ids)
    assert (counts.tokens_min, counts.tokens_max) == (min(corpus.lengths), max(corpus.lengths))
    assert counts.tokens_mean == pytest.approx(np.mean(corpus.lengths))
    assert corpus.ids[3] == "rows.jsonl:4"


def test_too_long_is_an_error_naming_the_row_or_dropped_or_truncated(source, tiny_tokenizer):
    corpus, _ = load_corpus(DataConfig(path=source), tiny_tokenizer)
    limit = corpus.lengths[3] - 1
    with pytest.raises(UserError, match=r"rows\.jsonl, line 4 .* has \d+ tokens, more than .*\(1 of 40"):
        load_corpus(DataConfig(path=source, max_length=limit), tiny_tokenizer)

    dropped, counts = load_corpus(DataConfig(path=source, max_length=limit, too_long="drop"), tiny_tokenizer)
    assert (counts.examples, counts.dropped, counts.truncated) == (39, 1, 0)
    assert "rows.jsonl:4" not in dropped.ids

    cut, counts = load_corpus(DataConfig(path=source, max_length=limit, too_long="truncate"), tiny_tokenizer)
    assert (counts.examples, counts.dropped, counts.truncated) == (40, 0, 1)
    np.testing.assert_array_equal(cut.examples[3].token_ids, corpus.examples[3].token_ids[:limit])
    assert cut.examples[3].loss_mask.any()


def test_a_prompt_that_fills_the_length_is_dropped_even_when_truncating(source, tiny_tokenizer):
    with pytest.raises(UserError, match=r"no example .* is left"):
        load_corpus(DataConfig(path=source, max_length=5, too_long="truncate"), tiny_tokenizer)


def test_finished_text_without_an_assistant_names_the_row(tmp_path, tiny_tokenizer):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "no conversation"}) + "\n")
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: the text has no assistant's turn"):
        load_corpus(DataConfig(path=str(path)), tiny_tokenizer)


def test_held_out_share_is_fixed_by_the_seed_and_shares_no_prompt(source, tiny_tokenizer):
    corpus, _ = load_corpus(DataConfig(path=source), tiny_tokenizer)
    training, held_out = split_held_out(corpus, 0.15, seed=1)
    assert sorted(training.ids + held_out.ids) == sorted(corpus.ids)
    assert len(held_out) == 8  # two questions of four examples each: the fewest that reach 6

    def prompts(part):
        return {e.token_ids[~e.loss_mask].tobytes() for e in part.examples}

    assert not prompts(training) & prompts(held_out)
    backwards = corpus.take(list(range(len(corpus)))[::-1])
    assert set(split_held_out(backwards, 0.15, seed=1)[1].ids) == set(held_out.ids)
    assert any(set(split_held_out(corpus, 0.15, seed=s)[1].ids) != set(held_out.ids) for s in range(2, 5))


def test_held_out_share_at_its_ends(source, tiny_tokenizer):
    corpus, _ = load_corpus(DataConfig(path=source), tiny_tokenizer)
    training, held_out = split_held_out(corpus, 0.0, seed=1)
    assert len(training) == 40 and len(held_out) == 0
    with pytest.raises(UserError, match="leaves none"):
        split_held_out(corpus, 0.95, seed=1)
    with pytest.raises(UserError, match="below 1"):
        split_held_out(corpus, 1.0, seed=1)
