"""Keywords of a task and arguments of the model `s1_jax` of lm-evaluation-harness, read or refused in one line."""

from __future__ import annotations

import re

import pytest

from s1_jax.config import S1, BudgetConfig, FormatConfig, SamplingConfig
from s1_jax.config.lm_eval import HarnessConfig
from s1_jax.errors import UserError

pytest.importorskip("lm_eval", reason="needs lm_eval: pip install 's1_jax[lm-eval]'")

from s1_jax.harness import model as harness
from s1_jax.harness.keywords import budget_of, format_of, read_keywords, read_model_args, sampling_of, tries_of
from tests.harness.asking import generated
from tests.templates import family_tokenizer, tokenizer_with
from tests.tokenizer import byte_tokenizer


def test_keywords_as_a_budget():
    def read(**given):
        return read_keywords(given, HarnessConfig(max_gen_toks=50, seed=4))

    assert not read(until="\n", max_new_tokens=9, num_beams=1).thinks
    assert read(until="\n", max_tokens=9).until == ("\n",) and read(max_tokens=9).max_gen_toks == 9
    assert read().seed == 4 and read(seed=1).seed == 1 and read().max_gen_toks == 50
    assert budget_of(read(min_tokens_thinking=3), 7) == BudgetConfig(3, 50, 0, "")
    assert budget_of(read(max_tokens_thinking="auto"), 7) == BudgetConfig(0, 7, 0, "")
    assert budget_of(read(thinking_n_ignore=2, thinking_n_ignore_str="Hm"), 7) == BudgetConfig(1, 50, 2, "Hm")
    rotating = read(thinking_n_ignore=2.0, thinking_n_ignore_str=["Hm", "Wait"], max_tokens_thinking=1e3)
    assert budget_of(rotating, 7) == BudgetConfig(1, 1000, 2, ("Hm", "Wait"))
    assert sampling_of(read(temperature=0.5, top_k=-1)) == (SamplingConfig(0.5), None)
    assert sampling_of(read(temperature=0.5, do_sample=False))[0] == SamplingConfig()
    own = read(temperature=0.5, min_p=0.1, temperature_thinking=1, top_k_thinking=5)
    assert sampling_of(own) == (SamplingConfig(0.5, min_p=0.1), SamplingConfig(1.0, 5, min_p=0.1))
    assert tries_of(read(max_tokens_thinking=5)) == 1
    assert tries_of(read(max_tokens_thinking=5, temperature=1, rejection_sample=7)) == 7


def test_keywords_as_a_format():
    def read(**given):
        return format_of(read_keywords({"max_tokens_thinking": 5} | given, HarnessConfig()), byte_tokenizer())

    assert read() == S1
    other = read(thinking_start="<think>", thinking_end="</think>", until_thinking="</think>", until=["\n\n"])
    assert (other.think_start, other.answer_start) == ("<think>", "</think>")
    stops = ("<|im_end|>", "<|endoftext|>")
    assert other.end_markers == ("</think>", *stops)
    assert read(until=["\n\n", "</s>"]) == read(until=[]) == read(until="\n\n", until_ends_thinking=False) == S1
    as_fork = read(until=["\n\n", "</s>"], until_ends_thinking=True)
    assert as_fork.end_markers == ("<|im_start|>", *stops, "\n\n", "</s>")
    own = read(until=["a"], until_thinking=["<|im_start|>", "\n\n"], until_thinking_2="<|a|>")
    assert own.end_markers == ("<|im_start|>", "\n\n", "<|a|>", *stops)
    assert read(until=["\n\n"], until_thinking="\n\n").end_markers == ("\n\n", *stops)
    assert read(until_thinking_2="<|a|>").end_markers == ("<|im_start|>", "<|a|>", "<|im_end|>", "<|endoftext|>")


@pytest.mark.parametrize(
    "given",
    [
        {"banned_words": ["wait", "hmm"]},
        {"notices": ["Half."], "notice_fractions": [0.5]},
        {"max_repetitions": 4},
        {"early_stopping_text": " Stop."},
    ],
    ids=lambda given: next(iter(given)),
)
def test_each_rule_asks_for_thinking(given):
    keywords = read_keywords(given, HarnessConfig())
    assert keywords.thinks and not read_keywords({}, HarnessConfig()).thinks
    budget, format = budget_of(keywords, 7), format_of(keywords, byte_tokenizer())
    for name, value in given.items():
        stored = getattr(format if name == "early_stopping_text" else budget, name)
        assert stored == (tuple(value) if isinstance(value, list) else value)


def test_markers_that_the_tokenizer_says(shared_data):
    def read(tokenizer, **given):
        given = {"max_tokens_thinking": 5, "thinking_start": "auto"} | given
        return format_of(read_keywords(given, HarnessConfig()), tokenizer)

    assert read(byte_tokenizer()) == S1
    qwen3 = family_tokenizer(shared_data, "qwen3")
    stops = ("<|im_end|>", "<|endoftext|>")
    assert read(qwen3) == FormatConfig("<think>", "</think>", "\n\nFinal Answer:", ("</think>", *stops))
    assert read(qwen3, until_thinking="Done").end_markers == ("Done", *stops)
    assert read(qwen3, thinking_end="<answer>").answer_start == "<answer>"
    with pytest.raises(UserError, match="has no chat template"):
        read(tokenizer_with(None))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_token_thinking": 3}, "unknown field 'max_token_thinking'; did you mean 'max_tokens_thinking'"),
        ({"tempreature": 1}, "did you mean 'temperature'"),
        ({"num_beams": 4}, "unknown field 'num_beams'"),
        ({"until_thinking": 3}, "until_thinking is 3; it must be a string"),
        ({"until_ends_thinking": "yes"}, "until_ends_thinking is 'yes'; it must be true or false"),
        ({"max_tokens_thinking": "all"}, "max_tokens_thinking is 'all'; it must be a whole number"),
        ({"max_tokens_thinking": -1}, "max_tokens_thinking is -1; it must be a whole number from 0"),
        ({"temperature": "hot"}, "could not convert string to float"),
        ({"temperature": -1.0}, "temperature is -1; it must be a number from 1e-06"),
        ({"max_gen_toks": 0}, "max_gen_toks is 0; it must be a whole number from 1"),
        ({"rejection_sample": True, "temperature": 1.0}, "needs max_tokens_thinking"),
        ({"rejection_sample": True, "max_tokens_thinking": 5}, "a temperature above 0"),
        (
            {"rejection_sample": True, "max_tokens_thinking": 5, "thinking_n_ignore": 1, "temperature": 1.0},
            "exclude each other",
        ),
        ({"max_tokens_thinking": "auto", "max_gen_toks": 20}, "leaves no token for max_tokens_thinking=auto"),
        ({"thinking_n_ignore_str": "x" * 17}, "the longest allowed is 16"),
    ],
)
def test_keywords_that_are_wrong_are_one_line_that_names_the_document(lm, given, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        generated(lm, ("1+1=", given))
    assert "made up document 0" in str(error.value) and "\n" not in str(error.value)


def test_model_arguments(folder):
    read = read_model_args
    assert read({"pretrained": "x", "batch_size": "8"}).rows == 8
    assert read({"pretrained": "x", "batch_size": "auto:4", "max_batch_size": 16}).rows == 16
    for given, message in (
        ({}, "pretrained=DIR_OR_HUB_ID is missing"),
        ({"pretrained": "x", "draft_token": 3}, "did you mean 'draft_tokens'"),
        ({"pretrained": "x", "dtype": "float16"}, "dtype is 'float16'; it must be auto or float32 or bfloat16"),
        ({"pretrained": "x", "device": "cuda"}, "JAX chooses the device"),
        ({"pretrained": "x", "batch_size": 0}, "batch_size is 0; it must be a whole number from 1"),
        ({"pretrained": folder, "max_length": 129}, "max_length 129 is above the model's 128"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            harness.S1JaxLM(**given)
    options = {"batch_size": "1", "max_batch_size": None, "device": "cuda:0"}  # as the harness gives them
    assert harness.S1JaxLM.create_from_arg_string(f"pretrained={folder},batch_size=4", options).arguments.rows == 4
    assert harness.S1JaxLM.create_from_arg_obj({"pretrained": folder}, options).arguments.rows == 1
