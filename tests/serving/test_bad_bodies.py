"""Bodies that are refused: one clear sentence with the field and its value, whatever the protocol."""

import pytest

from s1_jax.serving import anthropic, fields
from s1_jax.serving.accepted import CHAT as CHAT_ACCEPTED
from s1_jax.serving.accepted import CHAT_MESSAGE, MESSAGES, OPENAI, REASONING, STREAM_OPTIONS, TEXT_BLOCK, THINKING
from s1_jax.serving.accepted import TEXT as TEXT_ACCEPTED
from s1_jax.serving.errors import ApiError, anthropic_error, openai_error
from s1_jax.serving.fronts import FRONTS
from tests.serving.bodies import ASKED, CHAT, LEAST, MODEL, TEXT, offer, read, refused
from tests.serving.bodies import MESSAGES as MESSAGES_PATH
from tests.templates import tokenizer_with

NAN, INFINITY = float("nan"), float("inf")
ALL = (CHAT, TEXT, MESSAGES_PATH)
OPENAIS = (CHAT, TEXT)


def user(content):
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("paths", "given", "sentence"),
    [
        (OPENAIS, {"temperature": "hot"}, "temperature is 'hot'; it must be a number from 0 to 2"),
        (OPENAIS, {"temperature": 2.5}, "temperature is 2.5; it must be a number from 0 to 2"),
        (OPENAIS, {"temperature": True}, "temperature is true; it must be a number from 0 to 2"),
        (OPENAIS, {"temperature": -1}, "temperature is -1; it must be a number from 0 to 2"),
        (OPENAIS, {"temperature": 10**400}, "temperature is 1000000000000000000000000000000000000000..."),
        (OPENAIS, {"temperature": 1e-9}, "temperature is 1e-09; it must be a number from 1e-06 to 1e+06, or 0"),
        ((MESSAGES_PATH,), {"temperature": 1.5}, "temperature is 1.5; it must be a number from 0 to 1"),
        (ALL, {"top_p": 0}, "top_p is 0; it must be a number above 0 and of at most 1"),
        (ALL, {"top_p": [0.5]}, "top_p is a list of 1 item; it must be a number above 0 and of at most 1"),
        (ALL, {"top_k": -2}, "top_k is -2; it must be a whole number of at least 1, or 0 or -1 for all tokens"),
        (ALL, {"top_k": 1.5}, "top_k is 1.5; it must be a whole number"),
        (ALL, {"top_k": 10**5000}, "top_k is a number of thousands of digits; it must be a whole number"),
        (ALL, {"min_p": 2}, "min_p is 2; it must be a number from 0 to 1"),
        (ALL, {"seed": 2**64}, "seed is 18446744073709551616; it must be a whole number of at most 64 bits"),
        (ALL, {"seed": "1"}, "seed is '1'; it must be a whole number"),
        (ALL, {"stream": "yes"}, "stream is 'yes'; it must be true or false"),
        (ALL, {"stream": 1}, "stream is 1; it must be true or false"),
        (ALL, {"max_tokens": -1}, "max_tokens is -1; it must be a whole number of at least"),
        (ALL, {"max_tokens": 0}, "max_tokens is 0; it must be a whole number of at least 1"),
        (ALL, {"max_tokens": 10.0}, "max_tokens is 10.0; it must be a whole number"),
        (ALL, {"max_tokens": False}, "max_tokens is false; it must be a whole number"),
        (ALL, {"max_tokens": 2**63}, "max_tokens is 9223372036854775808; it must be a whole number"),
        (ALL, {"max_answer_tokens": 0}, "max_answer_tokens is 0; it must be a whole number of at least 1"),
        (ALL, {"model": 7}, "model is 7; it must be a string"),
        (ALL, {"nonsense": 1}, "the field 'nonsense' is not supported"),
        (ALL, {"x" * 99: 1}, f"the field '{'x' * 40}...' is not supported"),
        (OPENAIS, {"n": 0}, "n is 0; it must be a whole number from 1 to 10,000"),
        (OPENAIS, {"n": 65}, "n 65 are 65 choices; the server's limit is 64"),
        (OPENAIS, {"stop": [""]}, "stop is a list of 1 item; it must be a string or a list of at most 16 strings"),
        (OPENAIS, {"stop": ""}, "stop is ''; it must be a string or a list of at most 16 strings, none of them empty"),
        (OPENAIS, {"stop": ["a"] * 17}, "stop is a list of 17 items; it must be"),
        (OPENAIS, {"stop": [1]}, "stop is a list of 1 item; it must be"),
        (OPENAIS, {"stream_options": {"include_usage": True}}, "stream_options is given, but stream is not true"),
        (OPENAIS, {"stream": True, "stream_options": {"x": 1}}, "the field 'stream_options.x' is not supported"),
        (OPENAIS, {"stream": True, "stream_options": 3}, "stream_options is 3; it must be an object"),
        (OPENAIS, {"service_tier": "flex"}, "service_tier is 'flex'; it must be 'auto' or 'default'"),
        (OPENAIS, {"frequency_penalty": 0.5}, "frequency_penalty is 0.5; it must be 0"),
        (OPENAIS, {"presence_penalty": False}, "presence_penalty is false; it must be 0"),
        (OPENAIS, {"repetition_penalty": 1.1}, "repetition_penalty is 1.1; it must be 1"),
        (OPENAIS, {"logit_bias": {"5": -100}}, "logit_bias is an object; it must be an empty object"),
        (OPENAIS, {"use_beam_search": True}, "use_beam_search is true; it must be false"),
        (OPENAIS, {"skip_special_tokens": False}, "skip_special_tokens is false; it must be true"),
        ((CHAT,), {"tools": [{}]}, "tools is a list of 1 item; it must be an empty list: tools are not supported"),
        ((CHAT,), {"tool_choice": "required"}, "tool_choice is 'required'; it must be 'none' or 'auto': tools are not"),
        ((CHAT,), {"functions": [{}]}, "functions is a list of 1 item; it must be an empty list: tools are not"),
        (
            (CHAT,),
            {"response_format": {"type": "json_object"}},
            'response_format is an object; it must be {"type": "text"}',
        ),
        ((CHAT,), {"modalities": ["text", "audio"]}, 'modalities is a list of 2 items; it must be ["text"]'),
        ((CHAT,), {"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens 5 and max_completion_tokens 6 disagree"),
        ((CHAT,), {"top_logprobs": 2}, "top_logprobs 2 needs logprobs true"),
        ((CHAT,), {"logprobs": 1}, "logprobs is 1; it must be true or false"),
        ((CHAT,), {"logprobs": True, "top_logprobs": 21}, "top_logprobs is 21; it must be a whole number from 0 to 20"),
        ((CHAT,), {"add_generation_prompt": False}, "add_generation_prompt is false; it must be true where"),
        ((CHAT,), {"continue_final_message": True}, "messages[0].role is 'user'; it must be 'assistant' where"),
        ((TEXT,), {"suffix": "end"}, "suffix is 'end'; it must be an empty string"),
        ((TEXT,), {"best_of": 2}, "best_of is 2; it must be 1, the same as n"),
        ((TEXT,), {"logprobs": True}, "logprobs is true; it must be a whole number from 0 to 20"),
        ((TEXT,), {"logprobs": 21}, "logprobs is 21; it must be a whole number from 0 to 20"),
        ((TEXT,), {"prompt": ["a"] * 9, "n": 8}, "9 prompts with n 8 are 72 choices; the server's limit is 64"),
        ((TEXT,), {"prompt": None}, "prompt is null; it must be a string, a list of strings, a list of token ids or"),
        ((TEXT,), {"prompt": [1, "a"]}, "prompt is a list of 2 items; it must be a string, a list of strings"),
        ((TEXT,), {"prompt": [True]}, "prompt is a list of 1 item; it must be"),
        ((TEXT,), {"prompt": [[1], [1.0]]}, "prompt is a list of 2 items; it must be"),
        ((TEXT,), {"prompt": []}, "the prompt is an empty list"),
        ((TEXT,), {"prompt": [[]]}, "the prompt is empty"),
        ((TEXT,), {"prompt": ""}, "the prompt is empty"),
        ((TEXT,), {"prompt": [5, -1]}, "the prompt has token id -1; ids are from 0 to"),
        ((TEXT,), {"prompt": [[5], [10**9]]}, "the prompt has token id 1000000000; ids are from 0 to"),
        ((TEXT,), {"prompt": [5] * 512}, "the prompt has 512 tokens; prompt, thinking and answer together have at"),
        ((TEXT,), {"messages": ASKED}, "the field 'messages' is not supported"),
        ((MESSAGES_PATH,), {"n": 1}, "the field 'n' is not supported"),
        ((MESSAGES_PATH,), {"stop_sequences": "x"}, "stop_sequences is 'x'; it must be a list of at most 16 strings"),
        ((MESSAGES_PATH,), {"stop_sequences": [""]}, "stop_sequences is a list of 1 item; it must be"),
        ((MESSAGES_PATH,), {"tools": [{}]}, "tools is a list of 1 item; it must be an empty list: tools are not"),
        ((MESSAGES_PATH,), {"system": 5}, "system is 5; it must be a string or a list of text blocks"),
        ((MESSAGES_PATH,), {"system": [{"type": "image"}]}, "system[0].type is 'image'; images are not supported"),
        ((MESSAGES_PATH,), {"enable_thinking": True}, "the field 'enable_thinking' is not supported"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(paths, given, sentence):
    for path in paths:
        error = refused(path, **given)
        assert error.status == 400
        if not ("max_tokens" in given and path == TEXT):  # which has 0 where the prompt is echoed
            assert error.message.startswith(sentence)


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (NAN, "is NaN; it must be a finite number"),
        (INFINITY, "is Infinity; it must be a finite number"),
        (-INFINITY, "is -Infinity; it must be a finite number"),
        ("half \ud83d", "contains half of a surrogate pair"),
    ],
)
def test_what_json_cannot_have_is_refused_wherever_it_stands(path, value, sentence):
    for given, name in (
        ({"temperature": value}, "temperature"),
        ({"metadata": {"a": [0, {"b": value}]}}, "metadata.a[1].b"),
        ({"stop": ["a", value], "messages": user("x")}, "stop[1]"),
    ):
        error = refused(path, **given)
        assert (error.status, error.param) == (400, name) and error.message.startswith(f"{name} {sentence}")


def test_a_name_that_is_no_unicode_is_refused():
    error = refused(CHAT, **{"half \ud83d": 1})
    assert r"half \ud83d" in error.message and "surrogate" in error.message


@pytest.mark.parametrize("path", ALL)
def test_bodies_that_are_no_objects_or_lack_a_field(path):
    front, terms = FRONTS[path], offer()
    for body, said in (([], "an empty list"), ("x", "'x'"), (None, "null"), (5, "5")):
        with pytest.raises(ApiError, match=f"^the body is {said}; it must be an object$"):
            front.read(body, terms)
    for name in LEAST[path]:
        body = {key: value for key, value in LEAST[path].items() if key != name}
        with pytest.raises(ApiError, match=f"^the field '{name}' is missing$") as raised:
            front.read(body, terms)
        assert raised.value.param == name


@pytest.mark.parametrize("path", ALL)
def test_another_model_is_not_found(path):
    error = refused(path, model="gpt-4o")
    assert (error.status, error.param, error.code) == (404, "model", "model_not_found")
    assert error.message == "the model 'gpt-4o' does not exist; this server has 'tiny'"


IMAGE = {"type": "image_url", "image_url": {"url": "data:..."}}


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([], "messages is an empty list; it must be a list of at least one message"),
        ("hi", "messages is 'hi'; it must be a list of at least one message"),
        (["hi"], "messages[0] is 'hi'; it must be an object"),
        ([{"content": "a"}], "the field 'messages[0].role' is missing"),
        (
            [{"role": "wizard", "content": "a"}],
            "messages[0].role is 'wizard'; it must be one of system, developer",
        ),
        ([{"role": ["user"], "content": "a"}], "messages[0].role is a list of 1 item; it must be a string"),
        ([{"role": "tool", "content": "a"}], "messages[0].role is 'tool'; tools are not supported"),
        ([{"role": "function", "content": "a"}], "messages[0].role is 'function'; tools are not supported"),
        ([{"role": "user"}], "messages[0].content is null; it must be a string or a list of parts"),
        (user(5), "messages[0].content is 5; it must be a string or a list of parts"),
        (user(["a"]), "messages[0].content[0] is 'a'; it must be an object"),
        (user([IMAGE]), "messages[0].content[0].type is 'image_url'; images are not supported"),
        (user([{"type": "input_audio"}]), "messages[0].content[0].type is 'input_audio'; audio is not supported"),
        (user([{"type": "file"}]), "messages[0].content[0].type is 'file'; files are not supported"),
        (user([{"type": "text"}]), "the field 'messages[0].content[0].text' is missing"),
        (user([{"type": "words", "text": "a"}]), "messages[0].content[0].type is 'words'; it must be 'text'"),
        (user([{"type": "text", "text": 1}]), "messages[0].content[0].text is 1; it must be a string"),
        ([{"role": "user", "content": "a", "mood": 1}], "the field 'messages[0].mood' is not supported"),
        ([*user("a"), {"role": "assistant", "tool_calls": [{}]}, *user("b")], "messages[1].tool_calls is a list of 1"),
        ([*user("a"), {"role": "assistant", "content": None}, *user("b")], "messages[1].content is null"),
        ([{"role": "user", "content": "a", "reasoning": "b"}], "messages[0] is from the user; only the assistant's"),
        ([{"role": "system", "content": ""}], "messages[0].role is 'system'; it must be 'user' in the last message"),
        (
            [*user("a"), {"role": "assistant", "content": "b"}],
            "messages[1].role is 'assistant'; it must be 'user' in the last message, or else continue_final_message",
        ),
        (
            [*user("a"), {"role": "assistant", "reasoning": "b", "reasoning_content": "c"}, *user("d")],
            "messages[1].reasoning_content and messages[1].reasoning disagree",
        ),
        (user("word " * 600), "the prompt has "),
        (user("a") * 600, "there are 600 messages; prompt, thinking and answer together have at most 512 tokens"),
    ],
)
def test_wrong_messages_of_a_chat(messages, sentence):
    error = refused(CHAT, messages=messages)
    assert error.status == 400 and error.message.startswith(sentence)


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([], "messages is an empty list; it must be a list of at least one message"),
        ([7], "messages[0] is 7; it must be an object"),
        ([{"role": "tool", "content": "a"}], "messages[0].role is 'tool'; it must be one of user, assistant, system"),
        ([{"role": "user", "content": None}], "messages[0].content is null; it must be a string or a list of blocks"),
        (user([{"type": "image", "source": {}}]), "messages[0].content[0].type is 'image'; images are not supported"),
        (user([{"type": "document"}]), "messages[0].content[0].type is 'document'; documents are not supported"),
        (user([{"type": "tool_result"}]), "messages[0].content[0].type is 'tool_result'; tools are not supported"),
        (user([{"type": "thinking", "thinking": "a"}]), "messages[0].content[0] is a thinking block in a message of"),
        (
            [{"role": "assistant", "content": [{"type": "tool_use"}]}],
            "messages[0].content[0].type is 'tool_use'",
        ),
        (
            [*user("a"), {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}],
            "messages[1].content[0].type is 'redacted_thinking'; redacted thinking is not supported",
        ),
        (user([{"type": "text", "text": "a", "citations": [{}]}]), "messages[0].content[0].citations is a list of 1"),
        ([*user("a"), {"role": "system", "content": "b"}], "messages[1].role is 'system'; it must be 'user', or"),
        ([*user("a"), {"role": "assistant", "content": ""}], "the last message is to be continued, but it is empty"),
    ],
)
def test_wrong_messages_of_anthropic_s(messages, sentence):
    error = refused(MESSAGES_PATH, messages=messages)
    assert error.status == 400 and error.message.startswith(sentence)
    body = {"model": MODEL, "messages": messages}
    with pytest.raises(ApiError) as counting:
        anthropic.count_tokens(body, offer())
    assert counting.value.message == error.message


def test_an_error_does_not_show_where_the_model_lies():
    tokenizer = tokenizer_with("{{ raise_exception('no') }}")
    tokenizer.name_or_path = "/models/secret"
    error = refused(CHAT, offer(tokenizer))
    assert error.status == 400 and error.message.startswith("the chat template of tiny fails: no")


NEUTRAL = {
    "user": "me",
    "metadata": {"a": "b"},
    "store": True,
    "safety_identifier": "x",
    "prompt_cache_key": "y",
    "service_tier": "auto",
    "frequency_penalty": 0.0,
    "presence_penalty": 0,
    "repetition_penalty": 1.0,
    "logit_bias": {},
    "use_beam_search": False,
    "skip_special_tokens": True,
}
NEUTRAL_CHAT = {
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "verbosity": None,
}


def test_fields_that_change_nothing_are_taken():
    for path, given in (
        (CHAT, NEUTRAL | NEUTRAL_CHAT),
        (TEXT, NEUTRAL | {"suffix": None, "best_of": None}),
        (MESSAGES_PATH, {"metadata": {"user_id": "x"}, "service_tier": "auto", "tools": [], "cache_control": {}}),
    ):
        plain = read(path, seed=3)
        assert read(path, seed=3, **given) == plain
        assert read(path, seed=3, **dict.fromkeys(given)) == plain, "null is no field"


def test_every_field_that_can_be_left_out_may_be_null():
    for path in ALL:
        left = {"top_p": None, "top_k": None, "min_p": None, "thinking": None, "stream": None, "temperature": None}
        assert read(path, seed=3, **left) == read(path, seed=3)


def test_the_tables_say_what_they_take_and_why():
    tables = (OPENAI, CHAT_ACCEPTED, TEXT_ACCEPTED, MESSAGES, CHAT_MESSAGE, REASONING, STREAM_OPTIONS, TEXT_BLOCK)
    for table in (*tables, THINKING):
        for name, accepted in table.items():
            assert accepted.values and accepted.why and accepted.fits(None), name
    assert OPENAI.items() <= CHAT_ACCEPTED.items() and OPENAI.items() <= TEXT_ACCEPTED.items()


def test_the_bodies_of_errors():
    error = ApiError(400, "temperature is hot", "temperature", "hot")
    assert openai_error(error) == {
        "error": {
            "message": "temperature is hot",
            "type": "invalid_request_error",
            "param": "temperature",
            "code": "hot",
        }
    }
    assert anthropic_error(error) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "temperature is hot"},
    }
    types = {status: anthropic_error(ApiError(status, ""))["error"]["type"] for status in (*range(400, 430), 500, 503)}
    assert types[401] == "authentication_error" and types[404] == "not_found_error"
    assert types[413] == "request_too_large" and types[429] == "rate_limit_error"
    assert types[405] == "invalid_request_error" and types[500] == "api_error" and types[503] == "overloaded_error"
    assert openai_error(ApiError(503, ""))["error"]["type"] == "service_unavailable"
    assert openai_error(ApiError(502, ""))["error"]["type"] == "server_error"
    assert anthropic_error(ApiError(504, ""))["error"]["type"] == "timeout_error"


def test_values_are_shown_short():
    assert fields.shown("x" * 99) == f"'{'x' * 40}'..." and fields.shown("two\nlines") == r"'two\nlines'"
    assert [fields.shown(value) for value in (None, True, 0.5, {}, {1: 2}, [], 10**5000)] == [
        *("null", "true", "0.5", "an empty object", "an object", "an empty list", "a number of thousands of digits")
    ]
