"""The model `s1_jax` of lm-evaluation-harness, through the harness itself: its evaluator, its command line, its tasks.

The tasks are the harness's own YAML files (gsm8k, arc_easy), included, and pointed at a few rows made here: their data
sets are on the hub. For gsm8k that changes what the user is asked (the bare question) and how many examples come before
it (none).
"""

from __future__ import annotations

import copy
import importlib
import json
import re
import sys
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

import s1_jax
from s1_jax.config import S1, BudgetConfig, SamplingConfig
from s1_jax.config.lm_eval import HarnessConfig
from s1_jax.data.synthetic import generate_problems
from s1_jax.decoding.host import slots
from s1_jax.errors import UserError
from tests.tokenizer import byte_tokenizer

pytest.importorskip("lm_eval", reason="needs lm_eval: pip install 's1_jax[lm-eval]'")

import lm_eval
import lm_eval.tasks
from lm_eval.api.instance import Instance

from s1_jax import lm_eval as command
from s1_jax.harness import model as harness
from s1_jax.harness.encoding import prefix_id, text_ids
from s1_jax.harness.keywords import budget_of, format_of, read_keywords, read_model_args, sampling_of, tries_of

TOLERANCE = 1e-4  # of a log-likelihood: float32 through every layer, sums in another order
V, MAX_LENGTH = 264, 128
HARNESS_TASKS = Path(lm_eval.__file__).parent / "tasks"
TINY_BASE = Path(s1_jax.__file__).parent / "assets" / "tiny_base"
ROWS, PROBLEMS = 4, 10

loaded = cache(s1_jax.load_model)  # models that stay compiled from test to test


@pytest.fixture(autouse=True)
def one_model_of_each(monkeypatch):
    """Loaded once; its batch keeps its size when it runs empty, so that nothing is compiled for smaller ones."""
    monkeypatch.setattr(harness, "load_model", loaded)
    monkeypatch.setattr(slots, "SHRINK", 1)
    command.register()


# Log-likelihoods


@pytest.fixture(scope="module")
def reference(tiny_model):
    model = copy.deepcopy(tiny_model(1, vocab_size=V, max_position_embeddings=MAX_LENGTH).torch_model)
    with torch.no_grad():
        model.lm_head.weight[256:259] *= 1.7  # texts often end by themselves
    return model


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    reference.save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture
def lm(folder):
    return harness.S1JaxLM(pretrained=folder, batch_size=ROWS)


@pytest.fixture(scope="module")
def plain_score(reference):
    """Of ids after others, by transformers: the sum of their log-probabilities, and whether each is the likeliest."""

    def score(context, continuation):
        with torch.no_grad():
            logits = reference(torch.tensor([[*context, *continuation]])).logits[0, len(context) - 1 : -1]
        at = torch.log_softmax(logits.double(), -1)[torch.arange(len(continuation)), torch.tensor(continuation)]
        return float(at.sum()), logits.argmax(-1).tolist() == list(continuation)

    return score


def requests(kind, *arguments):
    return [Instance(kind, {}, given, i, ("made up", i, 1)) for i, given in enumerate(arguments)]


def generated(lm, *asked):
    """Texts for (prompt, keywords); the last is asked for again until the batch, whose size is compiled, is full."""
    filled = [*asked, *[asked[-1]] * (-len(asked) % ROWS)]
    return lm.generate_until(requests("generate_until", *filled))[: len(asked)]


def greedily(reference, ids, **options):
    ids = torch.tensor([ids])
    with torch.no_grad():
        found = reference.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **options)
    return found[0].tolist()


def assert_close(mine, theirs):
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in theirs]
    np.testing.assert_allclose([x for x, _ in mine], [x for x, _ in theirs], rtol=TOLERANCE)


def test_log_likelihoods_are_transformers(lm, reference, plain_score):
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, V, c).tolist(), rng.integers(0, V, n).tolist()) for c, n in rng.integers(1, 60, (30, 2))]
    for context, _ in pairs[:8]:  # and what greedy decoding says
        row = greedily(reference, context, max_new_tokens=5, eos_token_id=None)
        pairs += [(context, row[len(context) :]), (context, [*row[len(context) : -1], 7])]
    mine = lm._loglikelihood_tokens([(None, *pair) for pair in pairs], disable_tqdm=True)
    assert_close(mine, [plain_score(*pair) for pair in pairs])
    assert {greedy for _, greedy in mine[30:]} == {True, False} and all(greedy for _, greedy in mine[30::2])
    assert lm.scorer.programs <= 2  # rows of 64 and of 128 tokens


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


# Texts


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
    assert "1 of 4 prompts were too long" in caplog.text
    assert last == generated(lm, (("xy" * 100)[-108:], {"max_gen_toks": 20}))[0]


# Keywords and arguments


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
        return format_of(read_keywords({"max_tokens_thinking": 5} | given, HarnessConfig()), "<|im_end|>")

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
            "do not go together",
        ),
        ({"max_tokens_thinking": "auto", "max_gen_toks": 20}, "leaves no token to max_tokens_thinking=auto"),
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


# The harness's evaluator and command line


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with two of the harness's tasks, on rows made here."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": row["problem"], "answer": f"So it is.\n#### {row['answer']}"}
        for row in generate_problems(0, 99)
        if " e" not in row["problem"]  # four updates at most: the tiny base works them out within 44 tokens
    ][:PROBLEMS]
    choices = {"text": ["one", "seven", "a 1"], "label": ["A", "B", "C"]}
    picks = [{"question": row["question"], "choices": choices, "answerKey": "ABC"[i % 3]} for i, row in enumerate(rows)]
    for name, made in (("problems", rows), ("picks", picks)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    (folder / "gsm8k_here.yaml").write_text(
        f"include: {HARNESS_TASKS / 'gsm8k' / 'gsm8k.yaml'}\n"
        "task: gsm8k_here\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs:\n  data_files: {{train: {folder}/problems.jsonl, test: {folder}/problems.jsonl}}\n"
        'doc_to_text: "{{question}}"\nnum_fewshot: 0\n'
        "generation_kwargs: {until: [], do_sample: false}\n"
    )
    (folder / "arc_here.yaml").write_text(
        f"include: {HARNESS_TASKS / 'arc' / 'arc_easy.yaml'}\n"
        "task: arc_here\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs:\n  data_files: {{train: {folder}/picks.jsonl, validation: {folder}/picks.jsonl, "
        f"test: {folder}/picks.jsonl}}\n"
    )
    return folder


@pytest.fixture
def evaluate(tasks):
    """`evaluate(task, **options)`: its results and samples by the harness's evaluator, on the model that ships here."""

    def evaluate(task, **options):
        manager = lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False)
        found = lm_eval.simple_evaluate(
            "s1_jax",
            {"pretrained": str(TINY_BASE), "batch_size": PROBLEMS},
            [task],
            task_manager=manager,
            bootstrap_iters=0,
            **options,
        )
        return found["results"][task], found["samples"][task]

    return evaluate


@pytest.fixture
def engine_texts(tasks):
    """`engine_texts(**options)`: what this project's own engine makes of the same problems, without the stop token."""

    def engine_texts(**options):
        questions = [json.loads(line)["question"] for line in (tasks / "problems.jsonl").read_text().splitlines()]
        model = loaded(str(TINY_BASE), "float32", harness.StoredConfig())
        records = model.generate(questions, batch_size=PROBLEMS, **options)
        return [re.sub(r"(<\|im_end\|>|<\|endoftext\|>)$", "", record["text"]) for record in records]

    return engine_texts


THINKING = "max_gen_toks=512,max_tokens_thinking=44,thinking_n_ignore=2,thinking_n_ignore_str=Wait"
SAME_BUDGET = {"max_thinking_tokens": 44, "num_ignore": 2}


def test_a_task_of_the_harness_scores_what_the_engine_writes(evaluate, engine_texts, tasks):
    results, samples = evaluate("gsm8k_here", gen_kwargs=THINKING, apply_chat_template=True)
    by_filter = {name: [s for s in samples if s["filter"] == name] for name in ("strict-match", "flexible-extract")}
    texts = engine_texts(budget=SAME_BUDGET, max_answer_tokens=99)
    assert [s["resps"] for s in by_filter["flexible-extract"]] == [[[text]] for text in texts]
    gold = [json.loads(line)["answer"].split()[-1] for line in (tasks / "problems.jsonl").read_text().splitlines()]
    right = [re.findall(r"-?[0-9]+", text)[-1].rstrip(".") == answer for text, answer in zip(texts, gold, strict=True)]
    assert results["exact_match,flexible-extract"] == np.mean(right) and np.mean(right) > 0
    assert results["exact_match,strict-match"] == 0.0  # the model never writes ####


def test_the_command_line_of_the_harness(tasks, engine_texts, tmp_path, monkeypatch, capsys):
    """In this process, and with an index of the tasks given alone: reading all of the harness's takes it 10 seconds."""
    every = lm_eval.tasks.TaskManager
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", partial(every, include_defaults=False))
    arguments = ["--model", "s1_jax", "--model_args", f"pretrained={TINY_BASE}", "--batch_size", str(PROBLEMS)]
    arguments += ["--tasks", "gsm8k_here", "--include_path", str(tasks), "--apply_chat_template"]
    arguments += ["--gen_kwargs", THINKING, "--output_path", str(tmp_path), "--log_samples"]
    monkeypatch.setattr(sys, "argv", ["lm_eval", *arguments])
    command.main()
    printed = capsys.readouterr().out
    assert "Tasks" in printed and "|gsm8k_here|" in printed
    (samples,) = tmp_path.rglob("samples_gsm8k_here_*.jsonl")
    (results,) = tmp_path.rglob("results_*.json")
    logged = [json.loads(line) for line in samples.read_text().splitlines()]
    texts = engine_texts(budget=SAME_BUDGET, max_answer_tokens=99)
    assert [s["resps"] for s in logged if s["filter"] == "strict-match"] == [[[text]] for text in texts]
    assert json.loads(results.read_text())["config"]["s1_jax"]["batch_size"] == PROBLEMS


def test_answers_in_the_harness_s_cache_are_not_decoded_again(evaluate, tmp_path, monkeypatch):
    options = {"gen_kwargs": THINKING, "apply_chat_template": True, "use_cache": str(tmp_path / "cache")}
    first = evaluate("gsm8k_here", **options)
    monkeypatch.setattr(harness, "generate", None)
    assert evaluate("gsm8k_here", **options)[0] == first[0]


def test_multiple_choice(evaluate):
    results, samples = evaluate("arc_here")
    best = [int(np.argmax([response[0][0] for response in s["resps"]])) for s in samples]
    assert results["acc,none"] == np.mean([pick == i % 3 for i, pick in enumerate(best)])
    assert all(response[0][0] < 0 for s in samples for response in s["resps"])
