"""From events to JSON, streamed and not, in each protocol; clients' own types accept every body and chunk."""

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from s1_jax.data.chat import encode
from s1_jax.serving.errors import ApiError
from s1_jax.serving.fronts import FRONTS
from s1_jax.serving.generation import Delta, Finish, TokenScore, Usage
from s1_jax.serving.token_texts import token_texts
from tests.serving.bodies import CHAT, MESSAGES, MODEL, TEXT, events_of, offer, read, tiny_tokenizer

ENDED = Finish(0, "stop", None, "natural", 1, Usage(prompt=12, cached=8, completion=20, reasoning=7))
THOUGHT = [Delta(0, "reasoning", "\nI add 2\u2028"), Delta(0, "reasoning", ""), Delta(0, "reasoning", " and 2.\r\n")]
ANSWERED = [Delta(0, "content", "It is"), Delta(0, "content", " 4 \U0001f600\x85")]
EVENTS = [*THOUGHT, *ANSWERED, ENDED]
REASONING, CONTENT = "\nI add 2\u2028 and 2.\r\n", "It is 4 \U0001f600\x85"
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 20,
    "total_tokens": 32,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 7},
}
NOT_THOUGHT = ENDED._replace(thinking_end=None, ignores_used=0, usage=Usage(10, 0, 5, 0))


def response(path, events, **given):
    return FRONTS[path].reply(read(path, **given), offer()).response(events)


def stream(path, events, **given):
    """The frames of a stream as (event, value)."""
    reply = FRONTS[path].reply(read(path, stream=True, **given), offer())
    frames = [*reply.start(), *(frame for event in events for frame in reply.next(event)), *reply.end()]
    return events_of(frames)


def chunks(path, events, **given):
    """The values of a stream in one of OpenAI's protocols, without the last frame."""
    *frames, last = stream(path, events, **given)
    assert last == (None, "[DONE]") and all(name is None for name, _ in frames)
    return [value for _, value in frames]


def test_a_chat_completion():
    body = response(CHAT, EVENTS)
    assert body["id"].startswith("chatcmpl-") and body["object"] == "chat.completion" and body["model"] == MODEL
    assert body["usage"] == USAGE
    message = {"role": "assistant", "content": CONTENT, "refusal": None}
    message |= {"reasoning_content": REASONING, "reasoning": REASONING}
    ended = {"finish_reason": "stop", "stop_reason": None, "thinking_end": "natural", "ignores_used": 1}
    assert body["choices"] == [{"index": 0, "message": message, "logprobs": None, **ended}]


def test_a_chat_completion_without_thinking():
    (choice,) = response(CHAT, [*ANSWERED, NOT_THOUGHT], enable_thinking=False)["choices"]
    assert choice["message"]["reasoning_content"] is None and choice["message"]["reasoning"] is None
    assert choice["thinking_end"] is None


def test_a_chat_completion_that_was_cut_while_thinking():
    cut = ENDED._replace(reason="length", thinking_end="length")
    (choice,) = response(CHAT, [*THOUGHT, cut])["choices"]
    assert choice["message"]["content"] == "" and choice["message"]["reasoning_content"] == REASONING
    assert (choice["finish_reason"], choice["thinking_end"]) == ("length", "length")


def test_a_stop_string_is_told():
    (choice,) = response(CHAT, [*ANSWERED, ENDED._replace(stop_string="END")])["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")


def test_a_chat_stream():
    first, *middle, last = chunks(CHAT, EVENTS)
    assert {chunk["object"] for chunk in (first, *middle, last)} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in (first, *middle, last)}) == 1
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    deltas = [chunk["choices"][0]["delta"] for chunk in middle]
    assert [list(delta) for delta in deltas] == [["reasoning_content", "reasoning"]] * 2 + [["content"]] * 2
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == REASONING
    assert "".join(delta.get("reasoning", "") for delta in deltas) == REASONING
    assert "".join(delta.get("content", "") for delta in deltas) == CONTENT
    ended = {"finish_reason": "stop", "stop_reason": None, "thinking_end": "natural", "ignores_used": 1}
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, **ended}]
    assert "usage" not in last


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_usage_comes_last_where_it_is_asked_for(path):
    *before, last = chunks(path, EVENTS, stream_options={"include_usage": True}, enable_thinking=True)
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in before)
    assert last["choices"] == [] and last["usage"] == USAGE


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_choices_of_one_prompt_are_told_apart_and_their_prompt_counts_once(path):
    events = [
        Delta(1, "content", "b"),
        Delta(0, "content", "a"),
        Delta(1, "content", "B"),
        ENDED._replace(choice=1, usage=Usage(12, 12, 30, 9)),
        ENDED,
    ]
    body = response(path, events, n=2)
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    texts = [choice["message"]["content"] if path == CHAT else choice["text"] for choice in body["choices"]]
    assert texts == ["a", "bB"]
    counts = USAGE | {"completion_tokens": 50, "total_tokens": 62}
    assert body["usage"] == counts | {"completion_tokens_details": {"reasoning_tokens": 16}}
    streamed = chunks(path, events, n=2, stream_options={"include_usage": True})
    assert streamed[-1]["usage"] == body["usage"]
    indices = [chunk["choices"][0]["index"] for chunk in streamed[:-1]]
    assert indices == ([0, 1] if path == CHAT else []) + [1, 0, 1, 1, 0]


def test_prompts_of_completions_count_each():
    ends = [ENDED._replace(choice=choice, usage=Usage(choice + 1, 0, 1, 0)) for choice in range(4)]
    body = response(TEXT, ends, prompt=["a", "b"], n=2)
    assert body["usage"]["prompt_tokens"] == 1 + 3 and body["usage"]["completion_tokens"] == 4
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]


def test_a_completion():
    body = response(TEXT, [*ANSWERED, NOT_THOUGHT])
    assert body["id"].startswith("cmpl-") and body["object"] == "text_completion"
    ended = {"finish_reason": "stop", "stop_reason": None, "thinking_end": None, "ignores_used": 0}
    assert body["choices"] == [{"index": 0, "text": CONTENT, "logprobs": None, **ended}]
    (choice,) = response(TEXT, EVENTS, enable_thinking=True)["choices"]
    assert (choice["text"], choice["reasoning_content"], choice["reasoning"]) == (CONTENT, REASONING, REASONING)


def test_a_stream_of_a_completion():
    values = chunks(TEXT, [Delta(0, "prompt", "2+2"), *EVENTS], echo=True, enable_thinking=True)
    choices = [value["choices"][0] for value in values]
    assert "".join(choice["text"] for choice in choices) == "2+2" + CONTENT
    assert "".join(choice.get("reasoning_content", "") for choice in choices) == REASONING
    assert [choice["finish_reason"] for choice in choices] == [None] * 5 + ["stop"]
    assert choices[-1]["thinking_end"] == "natural"


def scored(choice, part, text, logprob=-0.5):
    """A delta with the tokens of its text, each with another one that is likelier."""
    ids = encode(tiny_tokenizer(), text)
    other = encode(tiny_tokenizer(), "x")[0]
    scores = tuple(TokenScore(i, logprob, ((other, -0.25), (i, logprob))) for i in ids)
    return Delta(choice, part, text, scores)


def test_log_probabilities_of_a_chat():
    events = [scored(0, "reasoning", "a"), scored(0, "content", "b"), scored(0, "content", "c"), ENDED]
    (choice,) = response(CHAT, events, logprobs=True, top_logprobs=2)["choices"]
    likelier = {"token": "x", "logprob": -0.25, "bytes": [120]}
    b, c, a = ({"token": t, "logprob": -0.5, "bytes": [ord(t)]} for t in "bca")
    b, c, a = (token | {"top_logprobs": [likelier, token]} for token in (b, c, a))
    assert choice["logprobs"] == {"content": [b, c], "refusal": None, "reasoning_content": [a]}
    values = [value["choices"][0]["logprobs"] for value in chunks(CHAT, events, logprobs=True, top_logprobs=2)]
    assert values == [
        None,
        {"content": [], "refusal": None, "reasoning_content": [a]},
        *({"content": [token], "refusal": None} for token in (b, c)),
        None,
    ]


def test_log_probabilities_of_a_completion():
    first = scored(0, "prompt", "a", None)._replace(scores=(TokenScore(encode(tiny_tokenizer(), "a")[0], None, ()),))
    events = [first, scored(0, "prompt", "b"), scored(0, "content", "cd", -1e30), NOT_THOUGHT]
    (choice,) = response(TEXT, events, logprobs=1, echo=True)["choices"]
    tokens = ["a", "b", *(tiny_tokenizer().decode([i]) for i in encode(tiny_tokenizer(), "cd"))]
    assert choice["text"] == "abcd" == "".join(tokens)
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == tokens
    assert logprobs["token_logprobs"] == [None, -0.5, *[-9999.0] * (len(tokens) - 2)]
    assert logprobs["top_logprobs"][:2] == [None, {"x": -0.25, "b": -0.5}]
    assert logprobs["text_offset"] == [len("".join(tokens[:i])) for i in range(len(tokens))]
    pieces = [value["choices"][0]["logprobs"] for value in chunks(TEXT, events, logprobs=1, echo=True)]
    for name in logprobs:
        assert [value for piece in pieces[:-1] for value in piece[name]] == logprobs[name]
    assert pieces[-1] is None
    (choice,) = response(TEXT, [scored(0, "reasoning", "a"), *events], logprobs=0, enable_thinking=True)["choices"]
    assert choice["logprobs"]["reasoning_content"]["tokens"] == ["a"]


def test_tokens_that_are_part_of_a_character():
    texts = token_texts(tiny_tokenizer())
    ids = encode(tiny_tokenizer(), "\U0001f600")
    assert len(ids) > 1
    assert bytes(byte for i in ids for byte in texts[i][1]) == "\U0001f600".encode()
    assert texts.named(ids[0]) == "bytes:" + "".join(f"\\x{byte:02x}" for byte in texts[ids[0]][1])
    events = [
        Delta(0, "content", "a", (TokenScore(encode(tiny_tokenizer(), "a")[0], -1.0, ()),)),
        *(Delta(0, "content", "", (TokenScore(i, -1.0, ()),)) for i in ids[:-1]),
        Delta(0, "content", "\U0001f600", (TokenScore(ids[-1], -1.0, ()),)),
        NOT_THOUGHT,
    ]
    for path, given in ((TEXT, {"logprobs": 0}), (CHAT, {"logprobs": True})):
        (choice,) = response(path, events, **given)["choices"]
        assert len(chunks(path, events, **given)) == len(events) + (path == CHAT), "each token is told at once"
        if path == TEXT:
            assert choice["logprobs"]["text_offset"] == [0] + [1] * len(ids)
            assert all(
                list(top) == [token]
                for top, token in zip(choice["logprobs"]["top_logprobs"], choice["logprobs"]["tokens"], strict=True)
            )


def test_bytes_of_every_token():
    tokenizer = tiny_tokenizer()
    texts, level = token_texts(tokenizer), ByteLevel(add_prefix_space=False, use_regex=False)
    whole = 0
    for token in range(len(tokenizer)):
        text, raw = texts[token]
        if "\N{REPLACEMENT CHARACTER}" not in text:
            assert bytes(raw) == text.encode()
            whole += 1
        else:
            assert bytes(raw).decode(errors="replace") == text
    assert whole > 100
    written = "".join(piece for piece, _ in level.pre_tokenize_str("é \n"))
    assert [texts._bytes[letter] for letter in written] == list("é \n".encode())


def test_a_message():
    body = response(MESSAGES, EVENTS)
    assert body["id"].startswith("msg_") and body["type"] == "message" and body["role"] == "assistant"
    assert body["content"] == [
        {"type": "thinking", "thinking": REASONING, "signature": ""},
        {"type": "text", "text": CONTENT},
    ]
    assert (body["stop_reason"], body["stop_sequence"]) == ("end_turn", None)
    assert (body["thinking_end"], body["ignores_used"]) == ("natural", 1)
    assert body["usage"] == {
        "input_tokens": 4,
        "output_tokens": 20,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 8,
        "output_tokens_details": {"thinking_tokens": 7},
    }
    assert response(MESSAGES, [*ANSWERED, NOT_THOUGHT])["content"] == [{"type": "text", "text": CONTENT}]


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (ENDED, "end_turn"),
        (ENDED._replace(stop_string="END"), "stop_sequence"),
        (ENDED._replace(reason="length"), "max_tokens"),
    ],
)
def test_reasons_of_a_message(ended, reason):
    body = response(MESSAGES, [*ANSWERED, ended])
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, ended.stop_string)
    assert stream(MESSAGES, [*ANSWERED, ended])[-2][1]["delta"]["stop_reason"] == reason


def test_a_stream_of_a_message():
    found = stream(MESSAGES, EVENTS)
    assert all(name == value["type"] for name, value in found)
    assert [name for name, _ in found] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,  # the last is the signature
        "content_block_stop",
        "content_block_start",
        *["content_block_delta"] * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    values = [value for _, value in found]
    start = values[0]["message"]
    assert start["content"] == [] and start["stop_reason"] is None and start["usage"]["output_tokens"] == 0
    request = read(MESSAGES).requests[0]
    marker = len(encode(tiny_tokenizer(), "<|im_start|>think"))
    assert start["usage"]["input_tokens"] == len(request.prompt_token_ids) + marker
    deltas = [value["delta"] for value in values if value["type"] == "content_block_delta"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == REASONING
    assert "".join(delta.get("text", "") for delta in deltas) == CONTENT
    assert [value["index"] for value in values if "index" in value] == [0] * 5 + [1] * 4
    assert values[-2]["usage"]["output_tokens"] == 20 and values[-2]["delta"]["thinking_end"] == "natural"


def test_a_stream_without_any_text_has_no_blocks():
    names = [name for name, _ in stream(MESSAGES, [ENDED])]
    assert names == ["message_start", "message_delta", "message_stop"]
    assert response(MESSAGES, [ENDED])["content"] == []


@pytest.mark.parametrize("path", FRONTS)
def test_a_failure_is_told_in_the_stream(path):
    front, error = FRONTS[path], ApiError(500, "the model gave no finite numbers")
    reply = front.reply(read(path, stream=True), offer())
    reply.start()
    reply.next(ANSWERED[0])
    (found,) = events_of(reply.failed(error))
    assert found == ("error" if path == MESSAGES else None, front.error_body(error))


def test_openai_s_own_types_take_every_body_and_chunk():
    chat = pytest.importorskip("openai.types.chat")
    types = pytest.importorskip("openai.types")
    events = [scored(0, "reasoning", "a"), scored(0, "content", "b"), *EVENTS]
    for given in ({}, {"logprobs": True, "top_logprobs": 2}, {"enable_thinking": False}):
        said = chat.ChatCompletion.model_validate(response(CHAT, events, **given), strict=True)
        assert said.choices[0].message.content == "b" + CONTENT and said.usage.prompt_tokens_details.cached_tokens == 8
        for value in chunks(CHAT, events, stream_options={"include_usage": True}, **given):
            chat.ChatCompletionChunk.model_validate(value, strict=True)
    for given in ({}, {"logprobs": 2}, {"enable_thinking": True}):
        said = types.Completion.model_validate(response(TEXT, events, **given), strict=True)
        assert said.choices[0].text == "b" + CONTENT
        for value in chunks(TEXT, events, stream_options={"include_usage": True}, **given):
            types.Completion.model_validate(value | {"choices": [c for c in value["choices"] if c["finish_reason"]]})


def test_anthropic_s_own_types_take_every_body_and_event():
    types = pytest.importorskip("anthropic.types")
    pydantic = pytest.importorskip("pydantic")
    for events in (EVENTS, [*ANSWERED, NOT_THOUGHT], [ENDED]):
        said = types.Message.model_validate(response(MESSAGES, events), strict=True)
        assert said.usage.output_tokens_details.thinking_tokens == events[-1].usage.reasoning
        adapter = pydantic.TypeAdapter(types.RawMessageStreamEvent)
        for _, value in stream(MESSAGES, events):
            assert adapter.validate_python(value).type == value["type"]
