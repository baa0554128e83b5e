"""Texts of the model `s1_jax` of lm-evaluation-harness: plain, with a budget, up to a stop string, sampled."""

from __future__ import annotations

import re

import pytest

from s1_jax.config import S1

pytest.importorskip("lm_eval", reason="needs lm_eval: pip install 's1_jax[lm-eval]'")

from tests.harness.asking import MAX_LENGTH, V, generated, greedily


def test_plain_generation_is_transformers_up_to_a_stop_string(lm, reference):
    prompts = ["1+1=", "Say a word!", "x" * 40]
    unknown = list(range(len(lm.tokenizer), V))
    expected = []
    for prompt in prompts:
        ids = lm.tokenizer.encode(prompt)
        stops = lm.tokenizer.encode("<|im_end|><|endoftext|>")
        row = greedily(reference, ids, max_new_tokens=40, eos_token_id=stops, suppress_tokens=unknown)
        expected.append(re.split(r"<\|im_end\|>|<\|endoftext\|>", lm.tokenizer.decode(row[len(ids) :]))[0])
    assert generated(lm, *[(p, {"max_gen_toks": 40}) for p in prompts]) == expected
    longest = max(expected, key=len)
    until = ["not there", longest[7:10], longest[20]]
    cut = generated(lm, *[(p, {"max_gen_toks": 40, "until": until}) for p in prompts])
    assert cut == [re.split("|".join(map(re.escape, until)), text)[0] for text in expected]
    assert cut[expected.index(longest)] != longest


MIXED = (
    {"max_gen_toks": 6},
    {"max_gen_toks": 6, "max_tokens_thinking": 9, "thinking_n_ignore": 1, "thinking_n_ignore_str": "Wait"},
    {"max_gen_toks": 5, "max_tokens_thinking": 7, "do_sample": True, "temperature": 1.0, "top_p": 0.9, "seed": 3},
    {"max_gen_toks": 4, "max_tokens_thinking": 8, "temperature_thinking": 1.0},
)


def test_a_stop_string_ends_the_thinking_only_where_that_is_asked_for(lm):
    """Asked for in three ways, one of them that of s1's fork; the string is an end marker of several tokens here."""
    keywords = {"max_gen_toks": 4, "max_tokens_thinking": 40, "min_tokens_thinking": 40}
    (text,) = generated(lm, ("1+1=", keywords))
    thinking = text.removeprefix(S1.think_start).split("\n" + S1.answer_start)[0]
    pair = next(thinking[i : i + 2] for i in range(5, 40) if re.fullmatch("[!-~]{2}", thinking[i : i + 2]))
    free = keywords | {"min_tokens_thinking": 0}
    alone, *kept = generated(
        lm,
        ("1+1=", free),
        ("1+1=", free | {"until": []}),
        ("1+1=", free | {"until": ["not there", pair]}),
        ("1+1=", free | {"until": pair, "until_ends_thinking": False}),
        ("1+1=", free | {"until": [], "until_ends_thinking": True}),
    )
    opening, answer = alone.split(S1.answer_start)
    assert pair in opening
    assert [text.split(S1.answer_start)[0] for text in kept] == [opening] * 4
    assert [text.split(S1.answer_start)[1] for text in kept] == [
        *(answer, answer.split(pair)[0], answer.split(pair)[0], answer)
    ]
    for asked in (
        {"until": [pair], "until_ends_thinking": True},
        {"until": [pair], "until_thinking": ["<|im_start|>", pair]},
        {"until_thinking_2": pair},
    ):
        (ended,) = generated(lm, ("1+1=", free | asked))
        assert ended.startswith(S1.think_start + thinking.split(pair)[0] + S1.answer_start), asked


def test_an_answer_ends_at_a_stop_string_and_its_thinking_does_not(lm):
    keywords = {"max_gen_toks": 12, "max_tokens_thinking": 20, "min_tokens_thinking": 20}
    (whole,) = generated(lm, ("Say a word!", keywords))
    opening, answer = whole.split(S1.answer_start)
    string = answer[len(S1.final_answer) + 2 :][:1]
    (cut,) = generated(lm, ("Say a word!", keywords | {"until": [string]}))
    assert (
        string and cut == opening + S1.answer_start + S1.final_answer + answer[len(S1.final_answer) :].split(string)[0]
    )


def test_requests_of_all_kinds_at_once_are_those_of_each_alone(lm):
    mixed = [(text, keywords) for text in ("1+1=", "Say a word!") for keywords in MIXED]
    together = generated(lm, *mixed)
    apart = [generated(lm, *mixed[i::2]) for i in range(2)]
    assert together == [text for pair in zip(*apart, strict=True) for text in pair]
    assert [text.startswith("<|im_start|>think") for text in together] == [False, True, True, True] * 2


def test_a_request_that_is_repeated_is_another_sample(lm):
    keywords = {"max_gen_toks": 20, "do_sample": True, "temperature": 1.0}
    texts = generated(lm, *[("1+1=", keywords)] * 3)
    assert len(set(texts)) == 3
    assert generated(lm, *[("1+1=", keywords)] * 3) == texts


def test_thinking_is_drawn_by_its_own_temperature(lm):
    """Thoughts that differ, and greedy answers; thoughts that are greedy, so the same, and answers that differ."""
    shared = {"max_gen_toks": 30, "max_tokens_thinking": 12, "min_tokens_thinking": 12}

    def parts(**keywords):
        texts = generated(lm, *[("1+1=", shared | keywords)] * 4)
        thoughts, answers = zip(*[text.split(S1.answer_start) for text in texts], strict=True)
        return len(set(thoughts)), len(set(answers))

    assert parts() == (1, 1)
    assert parts(temperature_thinking=1.0)[0] == 4
    thoughts, answers = parts(do_sample=True, temperature=1.0, temperature_thinking=0.0)
    assert thoughts == 1 and answers > 1


def test_rejection_sampling_ends_by_itself_or_is_cut_at_the_last_try(lm):
    keywords = {"max_gen_toks": 4, "max_tokens_thinking": 9, "temperature_thinking": 1.0}
    ends = []
    for tries in (True, 1):
        asked = [("1+1=", keywords | {"rejection_sample": tries})] * 6
        ends.append([S1.final_answer in text for text in generated(lm, *asked)])
    assert not any(ends[0]) and any(ends[1])


def test_a_prompt_keeps_its_end_and_is_not_cut_for_the_sake_of_a_large_max_gen_toks(lm, caplog):
    keywords = {"max_gen_toks": MAX_LENGTH, "max_tokens_thinking": 3}
    long = ("xy" * 100, {"max_gen_toks": 20})
    *_, last = generated(lm, ("abab", keywords), ("cd", keywords), ("ef", keywords), long)
    assert "1 of 4 prompts are too long" in caplog.text
    assert last == generated(lm, (("xy" * 100)[-108:], {"max_gen_toks": 20}))[0]
