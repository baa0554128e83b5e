"""From bodies to the engine's requests: prompts, what is continued, lengths, sampling, seeds and choices."""

import pytest
from tokenizers.processors import TemplateProcessing

from s1_jax.config import SamplingConfig
from s1_jax.data.chat import encode
from s1_jax.decoding.core.requests import Request
from s1_jax.serving import anthropic
from tests.serving.bodies import ASKED, CHAT, LEAST, MESSAGES, TEXT, offer, read, refused, tiny_tokenizer
from tests.templates import THINK, family_tokenizer, tokenizer_with
from tests.tokenizer import SPECIALS

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "naïve ½ 中文"},
    {"role": "assistant", "content": "yes", "reasoning_content": "so it is"},
    {"role": "user", "content": ""},
]
# shows the thinking of all earlier turns
SHOWS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + (' ' + m.name if m.name else '') + ':'"
    " + ('(' + m.reasoning_content + ')' if m.reasoning_content else '') + m.content + '<|im_end|>' }}{% endfor %}"
    "{{ '<|im_start|>assistant:' if add_generation_prompt }}"
)
OPENS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + ':' + m.content + '<|im_end|>' }}{% endfor %}"
    "{{ '<|im_start|>assistant:<think>\\n' if add_generation_prompt }}"
)


def one(path, terms=None, **given) -> Request:
    (request,) = read(path, terms, **given).requests
    return request


def text(request, terms=None):
    """The prompt of a request as text; each prompt is the encoding of its text."""
    tokenizer = (terms or offer()).tokenizer
    written = tokenizer.decode(request.prompt_token_ids, skip_special_tokens=False)
    assert encode(tokenizer, written) == list(request.prompt_token_ids)
    return written


def said(reasoning=None, content=None, **more):
    return {"role": "assistant", "reasoning_content": reasoning, "content": content, **more}


def reference(tokenizer, messages, thinking=True):
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, enable_thinking=thinking, return_dict=False
    )


@pytest.mark.parametrize("messages", [ASKED, TALK, TALK[1:], [*TALK, *TALK[2:]]])
@pytest.mark.parametrize("family", ["tiny", "qwen3", "qwq", "deepseek_r1_distill"])
def test_prompts_are_those_of_apply_chat_template(shared_data, family, messages):
    tokenizer = tiny_tokenizer() if family == "tiny" else family_tokenizer(shared_data, family)
    terms = offer(tokenizer) if family == "tiny" else offer(tokenizer, THINK)
    for path in (CHAT, MESSAGES):
        request = one(path, terms, messages=as_blocks(messages) if path == MESSAGES else messages)
        assert list(request.prompt_token_ids) == reference(tokenizer, messages) and request.thinking
    if family == "qwen3":
        request = one(CHAT, terms, messages=messages, enable_thinking=False)
        assert list(request.prompt_token_ids) == reference(tokenizer, messages, thinking=False)
        assert not request.thinking
    if family == "tiny":
        request = one(CHAT, offer(thinking=False), messages=messages)
        assert list(request.prompt_token_ids) == reference(tokenizer, messages) and not request.thinking


def as_blocks(messages):
    """The same conversation in Anthropic's words, with its system message among the others."""
    turns = []
    for message in messages:
        blocks = [{"type": "text", "text": message["content"], "cache_control": {"type": "ephemeral"}}]
        if reasoning := message.get("reasoning_content"):
            blocks.insert(0, {"type": "thinking", "thinking": reasoning, "signature": "x"})
        turns.append({"role": message["role"], "content": blocks})
    return turns


def test_earlier_thinking_and_names_are_left_to_the_template():
    terms = offer(tokenizer_with(SHOWS))
    shown = "<|im_start|>system:Be brief.<|im_end|><|im_start|>user:naïve ½ 中文<|im_end|>"
    shown += "<|im_start|>assistant:(so it is)yes<|im_end|><|im_start|>user:<|im_end|><|im_start|>assistant:"
    assert text(one(CHAT, terms, messages=TALK), terms) == shown
    other = [*TALK[:2], {"role": "assistant", "content": "yes", "reasoning": "so it is", "tool_calls": []}, TALK[3]]
    assert text(one(CHAT, terms, messages=other), terms) == shown
    other[0] = {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]}
    assert text(one(CHAT, terms, messages=other), terms) == shown.replace("Be brief.", "Be\nbrief.")
    body = {"system": [{"type": "text", "text": "Be brief."}], "messages": as_blocks(TALK[1:])}
    assert text(one(MESSAGES, terms, **body), terms) == shown
    assert text(one(MESSAGES, terms, **body | {"system": "Be brief."}), terms) == shown
    named = [{"role": "user", "content": "a", "name": "Ann"}]
    assert text(one(CHAT, terms, messages=named), terms).startswith("<|im_start|>user Ann:a")
    silent = [*ASKED, said("only thought"), *ASKED]
    assert "assistant:(only thought)<|im_end|>" in text(one(CHAT, terms, messages=silent), terms)


def test_without_thinking_it_is_over_before_the_answer():
    prompt = text(one(CHAT))
    request = one(CHAT, enable_thinking=False)
    assert text(request) == prompt + "<|im_start|>think\n\n<|im_start|>answer\n" and not request.thinking
    terms = offer(tokenizer_with(OPENS, (*SPECIALS, "<think>", "</think>")), THINK)
    for terms_ in (terms, offer(terms.tokenizer, THINK, thinking=False)):
        request = one(CHAT, terms_, enable_thinking=False)
        assert text(request, terms).endswith("assistant:<think>\n\n</think>\n\n") and not request.thinking


CONTINUED = {"continue_final_message": True}


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("content", [None, ""])
def test_thinking_that_is_given_is_continued(thinking, content):
    terms = offer(thinking=thinking, budget={"num_ignore": 2})
    messages = [*TALK, said("First I add 2", content)]
    request = one(CHAT, terms, messages=messages, **CONTINUED, add_generation_prompt=False)
    assert request.thinking and request.given_thinking == tuple(encode(terms.tokenizer, "First I add 2"))
    assert request.budget.num_ignore == 2, "the server's own budget"
    assert request.prompt_token_ids == one(CHAT, offer(), messages=TALK).prompt_token_ids
    blocks = {"role": "assistant", "content": [{"type": "thinking", "thinking": "First I add 2", "signature": ""}]}
    other = one(MESSAGES, terms, messages=[*as_blocks(TALK), blocks])
    assert (other.prompt_token_ids, other.given_thinking) == (request.prompt_token_ids, request.given_thinking)
    request = one(CHAT, terms, messages=messages, **CONTINUED, thinking={"max_tokens": 9})
    assert request.budget.max_thinking_tokens == 9


@pytest.mark.parametrize("thinking", [True, False])
def test_an_answer_that_has_begun_is_continued(thinking):
    terms = offer(thinking=thinking)
    asked = text(one(CHAT, offer(), messages=ASKED))
    for request in (
        one(CHAT, terms, messages=[*ASKED, said(None, "It is")], **CONTINUED),
        one(MESSAGES, terms, messages=[*ASKED, {"role": "assistant", "content": "It is"}]),
        one(MESSAGES, terms, messages=[*ASKED, {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}]),
    ):
        assert text(request) == asked + "It is"
        assert not request.thinking and not request.given_thinking


@pytest.mark.parametrize(
    ("reasoning", "content", "written"),
    [
        ("I add.", "It is", "<|im_start|>think\nI add.\n<|im_start|>answer\nIt is"),
        ("\nI add.\n", "\nIt is", "<|im_start|>think\nI add.\n<|im_start|>answer\nIt is"),
        (" I add.", " It is", "<|im_start|>think I add.\n<|im_start|>answer It is"),
    ],
)
def test_an_answer_after_its_thinking_is_continued(reasoning, content, written):
    asked = text(one(CHAT, offer(), messages=ASKED))
    request = one(CHAT, messages=[*ASKED, said(reasoning, content)], **CONTINUED)
    assert text(request) == asked + written and not request.thinking
    terms = offer(tokenizer_with(OPENS, (*SPECIALS, "<think>", "</think>")), THINK)
    request = one(CHAT, terms, messages=[*ASKED, said("I add.", "It is")], **CONTINUED)
    assert text(request, terms).endswith("<|im_end|><|im_start|>assistant:<think>\nI add.\n</think>\n\nIt is")


@pytest.mark.parametrize(
    ("last", "given", "sentence"),
    [
        (said("", ""), {}, "the last message is to be continued, but it is empty"),
        (said(None, ""), {}, "the last message is to be continued, but it is empty"),
        (
            said("I add"),
            {"enable_thinking": False},
            "the last message has only thinking to continue, and enable_thinking",
        ),
        (
            said("I add"),
            {"thinking_budget": 0},
            "the last message has only thinking to continue, and thinking_budget 0",
        ),
        (said("I add", "It"), {"thinking": {"max_tokens": 5}}, "thinking.max_tokens 5 needs thinking, but the last"),
        (
            said(None, "It"),
            {"enable_thinking": True},
            "enable_thinking true needs thinking, but the last",
        ),
        (said("I add"), {"add_generation_prompt": True}, "add_generation_prompt is true; it must be false where"),
    ],
)
def test_what_cannot_be_continued(last, given, sentence):
    error = refused(CHAT, messages=[*ASKED, last], **CONTINUED, **given)
    assert error.status == 400 and error.message.startswith(sentence)


def test_tokens_are_counted_as_they_are_read():
    terms = offer()
    prompt = len(one(CHAT, terms).prompt_token_ids)
    marker = len(encode(terms.tokenizer, "<|im_start|>think"))
    body = {"model": LEAST[MESSAGES]["model"], "messages": ASKED}
    assert anthropic.count_tokens(body, terms) == {"input_tokens": prompt + marker}
    off = body | {"thinking": {"type": "disabled"}}
    assert anthropic.count_tokens(off, offer(thinking=False)) == {"input_tokens": prompt}
    given = {"role": "assistant", "content": [{"type": "thinking", "thinking": "I add"}]}
    tokens = prompt + marker + len(encode(terms.tokenizer, "I add"))
    assert anthropic.count_tokens(body | {"messages": [*ASKED, given]}, terms) == {"input_tokens": tokens}
    opened = offer(tokenizer_with(OPENS, (*SPECIALS, "<think>", "</think>")), THINK)
    tokens = len(one(CHAT, opened).prompt_token_ids)
    assert anthropic.count_tokens(body, opened) == {"input_tokens": tokens}, "the template opens the thinking"


@pytest.mark.parametrize(
    ("given", "limit", "lengths"),  # of completion, answer, and what is reserved of it
    [
        ({}, None, (None, 512, 128)),
        ({}, 200, (200, 200, 50)),
        ({"max_tokens": 100}, None, (100, 100, 25)),
        ({"max_completion_tokens": 100}, 100, (100, 100, 25)),
        ({"max_tokens": 100, "max_completion_tokens": 100}, None, (100, 100, 25)),
        ({"max_tokens": 10_000}, None, (10_000, 512, 128)),
        ({"max_tokens": 1}, None, (1, 1, 0)),
        ({"max_answer_tokens": 7}, None, (None, 7, 7)),
        ({"max_tokens": 100, "max_answer_tokens": 300}, None, (100, 100, 25)),
    ],
)
def test_lengths(given, limit, lengths):
    request = one(CHAT, offer(limits={"max_completion_tokens": limit}), **given)
    assert (request.max_completion_tokens, request.max_answer_tokens, request.reserved_answer_tokens) == lengths
    assert request.name == "request"


def test_lengths_above_the_limit_are_refused():
    terms = offer(limits={"max_completion_tokens": 50})
    for path, name in ((CHAT, "max_tokens"), (CHAT, "max_completion_tokens"), (TEXT, "max_tokens")):
        error = refused(path, terms, **{name: 51})
        assert (error.param, error.message) == (name, f"{name} is 51; it must be at most 50, the server's limit")


def test_completions_write_16_tokens_unless_they_say_otherwise():
    assert one(TEXT).max_completion_tokens == 16
    request = one(TEXT, max_tokens=0, echo=True)
    assert (request.max_completion_tokens, request.max_answer_tokens, request.reserved_answer_tokens) == (0, 0, 0)


def test_sampling_is_the_server_s_unless_the_request_says_otherwise():
    terms = offer(sampling={"temperature": 0.7, "top_k": 40, "top_p": 0.8, "min_p": 0.1})
    for path in LEAST:
        assert one(path, terms).sampling == terms.config.sampling
        for every in (0, -1):
            request = one(path, terms, temperature=0, top_k=every, top_p=1, min_p=0.0)
            assert request.sampling == SamplingConfig()
        assert one(path, terms, top_k=None, top_p=0.5).sampling == SamplingConfig(0.7, 40, 0.5, 0.1)


def test_seeds():
    for path in LEAST:
        for seed in (0, 7, 2**32 - 1):
            assert one(path, seed=seed).seed == seed
        for seed in (-1, -(2**63), 2**64 - 1, 2**32 + 5):
            assert one(path, seed=seed).seed == seed % 2**32
        assert one(path).seed != one(path).seed, "chosen by chance"


def test_choices_have_one_seed_and_count_up_within_each_prompt():
    for path in (CHAT, TEXT):
        requests = read(path, n=3).requests
        assert [request.sample for request in requests] == [0, 1, 2]
        assert len({request.seed for request in requests}) == 1
    requests = read(TEXT, prompt=["one", "two"], n=2, best_of=2).requests
    ids = [tuple(encode(tiny_tokenizer(), text)) for text in ("one", "one", "two", "two")]
    assert [request.prompt_token_ids for request in requests] == ids
    assert [request.sample for request in requests] == [0, 1, 0, 1]
    assert read(TEXT, prompt=[[5, 6], [7]]).requests[1].prompt_token_ids == (7,)
    assert one(TEXT, prompt=[5, 6]).prompt_token_ids == (5, 6)


def test_a_prompt_gets_the_tokenizer_s_first_token_once():
    tokenizer = tokenizer_with(None, ("<s>", *SPECIALS), bos_token="<s>", eos_token="<|im_end|>")
    first = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", first)])
    terms = offer(tokenizer)
    plain = one(TEXT, terms, prompt="abc").prompt_token_ids
    assert plain == (first, *encode(tokenizer, "abc")) == one(TEXT, terms, prompt="<s>abc").prompt_token_ids


def test_streams_stops_and_log_probabilities():
    assert read(CHAT, stop="a").requests[0].stop_strings == ("a",)
    assert read(CHAT, stop=["a", "\n"]).requests[0].stop_strings == ("a", "\n")
    assert read(CHAT, stop=[]).requests[0].stop_strings == read(CHAT).requests[0].stop_strings == ()
    assert read(MESSAGES, stop_sequences=["a"]).requests[0].stop_strings == ("a",)
    for path in LEAST:
        assert read(path, stream=True).stream and not read(path, stream=False).stream
    for path in (CHAT, TEXT):
        options = {"include_usage": True, "include_obfuscation": False}
        assert read(path, stream=True, stream_options=options).include_usage
        assert not read(path, stream=True, stream_options={}).include_usage
    numbers = [
        read(CHAT, **given).logprobs for given in ({}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 3})
    ]
    assert numbers == [None, 0, 3] and read(CHAT, logprobs=False, top_logprobs=0).logprobs is None
    assert [read(TEXT, logprobs=number).logprobs for number in (None, 0, 20)] == [None, 0, 20]
    assert read(TEXT, echo=True).echo and not read(TEXT).echo
