"""A record tells where ends of thinking were ignored: in tokens, and in characters of its text."""

import pytest

from s1_jax.data.chat import ANSWER_START, THINK_START
from s1_jax.decoding.core.budget import AnswerEnd, End, Kind
from s1_jax.decoding.records import outcome
from tests.tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()


def made(*pieces, used):
    """The outcome of texts (or token ids), each of one kind, and an answer."""
    pieces = (*pieces, (ANSWER_START, Kind.SUFFIX), ("\n7", Kind.ANSWER))
    encoded = [(TOKENIZER.encode(piece) if isinstance(piece, str) else piece, int(kind)) for piece, kind in pieces]
    tokens = [token for ids, _ in encoded for token in ids]
    kinds = [kind for ids, kind in encoded for _ in ids]
    start = TOKENIZER.encode(THINK_START)
    record = outcome(TOKENIZER, start, tokens, kinds, End.NATURAL, AnswerEnd.STOP, used)
    assert record["text"] == TOKENIZER.decode([*start, *tokens], skip_special_tokens=False)
    return record


def test_each_ignored_end_has_its_place():
    record = made(
        *(("a Wait b", Kind.THINKING), ("Wait", Kind.IGNORE), (" cdé", Kind.THINKING), ("Wait", Kind.IGNORE)),
        ("e", Kind.THINKING),
        used=2,
    )
    assert [tokens for tokens, _ in record["ignored_ends"]] == [8, 17], "é is two tokens"
    for tokens, characters in record["ignored_ends"]:
        assert record["text"].startswith("Wait", characters)
        assert record["thinking_token_ids"][tokens : tokens + 4] == TOKENIZER.encode("Wait")
    assert record["text"][: record["ignored_ends"][0][1]] == f"{THINK_START}a Wait b", "its own word is not one"


def test_an_empty_string_leaves_a_place_too():
    record = made(("ab", Kind.THINKING), ("c", Kind.RESAMPLED), ("d", Kind.THINKING), used=1)
    assert record["ignored_ends"] == [[2, len(THINK_START) + 2]]


def test_no_ignored_end_is_no_place():
    assert made(("ab", Kind.THINKING), used=0)["ignored_ends"] == []


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_end_inside_a_character_stands_before_it(cut):
    ids = TOKENIZER.encode("\U0001f600")
    assert len(ids) == 4
    before, drawn, after = [*TOKENIZER.encode("ab"), *ids[:cut]], ids[cut : cut + 1], ids[cut + 1 :]
    record = made((before, Kind.THINKING), (drawn, Kind.RESAMPLED), (after, Kind.THINKING), used=1)
    assert record["ignored_ends"] == [[2 + cut, len(THINK_START) + 2]]
    assert record["text"].startswith(f"{THINK_START}ab\U0001f600")
