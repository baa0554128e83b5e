"""What may stand around a forced end, in the engine: against plain Python with transformers' scores, and in records."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from s1_jax.config import S1, BudgetConfig
from s1_jax.decoding.core.banned_words import banned_tokens
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.token_ids import NOTICE_WIDTH, ignore_ids, make_markers
from s1_jax.decoding.engine import MOST_BANNED_LISTS, Engine, Piece
from s1_jax.errors import UserError
from s1_jax.model.transformer import unstack
from tests.decoding.byte_model import MAX_ANSWER, MAX_MODEL_LEN, PROMPTS, TOKENIZER, V, words_of
from tests.decoding.plain import of_budget, plain_decode
from tests.decoding.test_engine import assert_same_tokens
from tests.records.json_schema import assert_records

NOTICES = {"notice_fractions": (0.25, 0.5), "notices": ("\nA quarter.\n", "Half!")}
BANNED = ("A", " e ", "é", "tz")  # "tz" is no token; "é" is two bytes, and none of them is its text
RULES = {
    "notices": NOTICES,
    "banned": {"banned_words": BANNED},
    "repetitions": {"max_repetitions": 2},
    "all": {**NOTICES, "banned_words": BANNED, "max_repetitions": 3},
}
EARLY = dataclasses.replace(S1, early_stopping_text="\n\nTime is up.\n")


def cases(rules):
    for maximum, count, prompt in itertools.product((9, 20, 33), (0, 2), PROMPTS):
        yield prompt, BudgetConfig(max_thinking_tokens=maximum, num_ignore=count, **rules)


def wanted(scores, words, prompt, budget):
    ids = [TOKENIZER.encode(text) for text in budget.notices]
    banned = banned_tokens(TOKENIZER, budget.banned_words, V).texts if budget.banned_words else ()
    return plain_decode(
        scores,
        words,
        prompt,
        max_model_len=MAX_MODEL_LEN,
        max_answer_tokens=MAX_ANSWER,
        notices=list(zip(budget.notice_positions, ids, strict=True)),
        banned_words=frozenset(banned),
        **of_budget(budget, ignore_ids(TOKENIZER, budget)),
    )


@pytest.mark.parametrize("rules", RULES)
def test_records_equal_plain_python(engine, scores, words, rules):
    asked = list(cases(RULES[rules]))
    records = list(engine.run([Request(*case, max_answer_tokens=MAX_ANSWER) for case in asked]))
    references = [wanted(scores, words, *case) for case in asked]
    assert_same_tokens(records, references, words)
    assert_records(records)
    if rules == "repetitions":
        assert sum(record["end"] == "repetition" for record in records) > 2
    if rules == "notices":
        assert sum("\nA quarter.\n" in record["text"] and "Half!" in record["text"] for record in records) > 2
    if rules == "banned":
        banned = banned_tokens(TOKENIZER, BANNED, V).texts
        assert not any(
            banned.keys() & {*record["thinking_token_ids"]} for record in records if not record["num_ignore"]
        )
    fields = {"notice_fractions", "notices", "banned_words", "max_repetitions"}
    assert all(fields & record.keys() == RULES[rules].keys() for record in records)


def test_a_text_before_the_end_marker(model, scores):
    words = words_of(EARLY)
    engine = Engine(model[1], unstack(model[2]), TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=16, format=EARLY)
    asked = [(prompt, BudgetConfig(max_thinking_tokens=n)) for prompt in PROMPTS for n in (0, 3, 12)]
    records = list(engine.run([Request(*case, max_answer_tokens=MAX_ANSWER) for case in asked]))
    assert_same_tokens(records, [wanted(scores, words, *case) for case in asked], words)
    cut = [record for record in records if record["end"] == "forced"]
    assert len(cut) > 2
    assert all("\n\nTime is up.\n<|im_start|>answer\nFinal Answer:" in record["text"] for record in cut)
    assert {record["format"]["early_stopping_text"] for record in records} == {"\n\nTime is up.\n"}


def test_one_newline_where_there_is_no_text():
    suffixes = [np.asarray(make_markers(TOKENIZER, V, format).suffixes) for format in (S1, EARLY)]
    assert (suffixes[0][1] != suffixes[0][2]).any() and (suffixes[1][1] == suffixes[1][2]).all()


def test_pieces_of_a_stream_say_that_a_notice_is_forced(engine):
    request = Request(PROMPTS[0], BudgetConfig(40, 60, **NOTICES), max_answer_tokens=MAX_ANSWER)
    *pieces, record = engine.stream(request)
    assert record == next(iter(engine.run([request])))
    assert all(isinstance(piece, Piece) for piece in pieces)
    forced = TOKENIZER.decode([i for piece in pieces if piece.forced for i in piece.token_ids])
    assert "\nA quarter.\n" in forced and "Half!" in forced


def test_another_list_of_words_compiles_nothing(model):
    engine = Engine(model[1], unstack(model[2]), TOKENIZER, max_model_len=64, batch_size=4)

    def run(minimum=1, **rules):
        budget = BudgetConfig(minimum, 20, **rules)
        return next(iter(engine.run([Request(PROMPTS[1], budget, max_answer_tokens=MAX_ANSWER)])))

    plain, _ = run(), run(20)  # the longer one shrinks the batch
    compiled = engine.num_compiled
    letters = {text for i in plain["thinking_token_ids"] if (text := TOKENIZER.decode([i]).strip()) and i < 256}
    without = run(banned_words=tuple(letters))
    assert letters and not letters & {TOKENIZER.decode([i]).strip() for i in without["thinking_token_ids"]}
    assert run(banned_words=("q",), max_repetitions=2, **NOTICES)["text"] and run() == plain
    assert engine.num_compiled == compiled


def test_tokens_are_banned_by_their_text():
    tokens = banned_tokens(TOKENIZER, ["A", " e ", "tz"], V)
    assert (
        tokens.texts == {ord(c): c for c in "AEae"} | {i: chr(i) for i in (9, 10, 11, 12, 13, 32)} or "\n" not in tokens
    )
    assert "tz" in tokens.without and "no single token is" in str(tokens) and "'A'" in str(tokens)
    with pytest.raises(UserError, match=r"banned_words: no single token of the tokenizer is 'tz' or 'wait'"):
        banned_tokens(TOKENIZER, ["tz", "wait"], V)
    with pytest.raises(UserError, match=r"'<\|im_end\|>' is a control token"):
        banned_tokens(TOKENIZER, ["<|IM_END|>"], V)


def test_words_of_a_real_vocabulary(shared_data):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen25_tokenizer")
    tokens = banned_tokens(tokenizer, ["Wait", "hmm", "double-check"], 151_936)
    assert {"Wait", " Wait", " wait", "wait"} <= {*tokens.texts.values()} and tokens.without == ["double-check"]
    assert {text.strip().lower() for text in tokens.texts.values()} == {"wait", "hmm"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"notices": ("x",), "notice_fractions": (0.5,)}, "notice_fractions are fractions of max_thinking_tokens"),
        ({"notices": ("x",), "max_thinking_tokens": 9}, "1 notices and 0 notice_fractions"),
        ({"notices": ("x", "y"), "notice_fractions": (0.5, 0.5), "max_thinking_tokens": 9}, "do not ascend"),
        ({"notices": ("",), "notice_fractions": (0.5,), "max_thinking_tokens": 9}, "notices has an empty text"),
        ({"notices": ("x",), "notice_fractions": (1.0,), "max_thinking_tokens": 9}, "above 0 and below 1"),
        ({"max_repetitions": 1}, "max_repetitions is 1"),
        ({"banned_words": "wait"}, "banned_words is 'wait'; it must be a tuple"),
    ],
)
def test_rules_that_cannot_be(given, words):
    with pytest.raises(UserError, match=words):
        BudgetConfig(**given)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (
            BudgetConfig(1, 9, notices=("x" * (NOTICE_WIDTH + 1),), notice_fractions=(0.5,)),
            "65 tokens long; the longest",
        ),
        (
            BudgetConfig(1, 99, notices=("x",) * 9, notice_fractions=tuple(i / 10 for i in range(1, 10))),
            "notices has 9 texts; a budget can have 8",
        ),
        (BudgetConfig(banned_words=("tz",)), "no single token"),
        (BudgetConfig(forcing=False, banned_words=("a",), max_repetitions=2), "banned_words and max_repetitions need"),
    ],
)
def test_what_the_engine_refuses(engine, budget, words):
    with pytest.raises(UserError, match=words):
        engine.check(Request(PROMPTS[0], budget, name="row 7"))


def test_an_engine_takes_so_many_lists_of_words(model):
    engine = Engine(model[1], unstack(model[2]), TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=4)
    for i in range(MOST_BANNED_LISTS):
        engine.check(Request(PROMPTS[0], BudgetConfig(banned_words=(chr(ord("!") + i),))))
    with pytest.raises(UserError, match="takes 32 lists of banned_words"):
        engine.check(Request(PROMPTS[0], BudgetConfig(banned_words=("z",))))
