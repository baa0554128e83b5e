"""Anthropic's official client drives the server: messages with and without thinking, streams, counts and errors."""

from __future__ import annotations

import anthropic
import pytest

from tests.serving.running import KEY, NAME, chat, joined_parts, question

SUM = question("a+2 b-3")
BUDGET = 20
GREEDY = {"temperature": 0, "max_answer_tokens": 8}
ON, OFF = {"type": "enabled", "budget_tokens": BUDGET}, {"type": "disabled"}


def message(claude, messages=SUM, thinking=ON, **given):
    """Ask for a message, greedily; `extra` holds fields that the client does not know."""
    extra = GREEDY | given.pop("extra", {})
    return claude.messages.create(
        **{"model": NAME, "max_tokens": 100, "messages": messages, "thinking": thinking, "extra_body": extra} | given
    )


def parts(reply):
    """The texts of a message's blocks by their type; there is at most one of each."""
    found = {block.type: getattr(block, block.type) for block in reply.content}
    assert len(found) == len(reply.content)
    return found


@pytest.fixture
def as_openai(client):
    """The same chat by the other protocol."""

    def ask(thinking, **given):
        return chat(client, given.pop("messages", SUM), {"thinking": thinking, "max_answer_tokens": 8}, **given)

    return ask


def test_a_message_that_thinks(claude, as_openai):
    reply = message(claude)
    assert (reply.type, reply.role, reply.model) == ("message", "assistant", NAME) and reply.id.startswith("msg_")
    assert [block.type for block in reply.content] == ["thinking", "text"]
    other = as_openai(ON, max_tokens=100)
    expected = other.choices[0].message
    assert parts(reply) == {"thinking": expected.reasoning_content, "text": expected.content}
    assert reply.stop_reason == "end_turn" and reply.stop_sequence is None and reply.thinking_end == "forced"
    usage = reply.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == other.usage.prompt_tokens
    assert usage.output_tokens == other.usage.completion_tokens
    assert usage.output_tokens_details.thinking_tokens == BUDGET


def test_without_thinking(claude, as_openai):
    reply = message(claude, thinking=OFF)
    assert parts(reply) == {"text": as_openai(OFF, max_tokens=100).choices[0].message.content}
    assert reply.thinking_end is None


def test_this_project_s_own_budget(claude):
    own = {"max_tokens": 100, "end_bias": 60.0, "num_ignore": 2, "ignore_string": "Wait"}
    reply = message(claude, thinking=own, max_tokens=200)
    assert reply.ignores_used == 2 and parts(reply)["thinking"].count("Wait") == 2


@pytest.mark.parametrize("thinking", [ON, OFF], ids=["on", "off"])
def test_a_stream_says_the_same(claude, thinking):
    whole = message(claude, thinking=thinking)
    kinds, texts = [], []
    asked = {"model": NAME, "max_tokens": 100, "messages": SUM, "thinking": thinking, "extra_body": GREEDY}
    with claude.messages.stream(**asked) as stream:
        for event in stream:
            kinds.append(event.type)
            texts += [event.text] if event.type == "text" else []
        final = stream.get_final_message()
    assert parts(final) == parts(whole) and "".join(texts) == parts(whole)["text"]
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == len(whole.content)
    assert ("thinking" in kinds) == (thinking is ON)


def test_counted_tokens_are_those_that_are_read(claude):
    asked = {"model": NAME, "messages": SUM}
    for thinking in (ON, OFF):
        counted = claude.messages.count_tokens(**asked, thinking=thinking).input_tokens
        usage = message(claude, thinking=thinking).usage
        assert counted == usage.input_tokens + usage.cache_read_input_tokens
    system = claude.messages.count_tokens(**asked, system="Be brief.", thinking=OFF).input_tokens
    assert system > claude.messages.count_tokens(**asked, thinking=OFF).input_tokens


def test_stop_sequences(claude):
    whole = parts(message(claude))
    stop = whole["text"][-1]
    reply = message(claude, stop_sequences=["never", stop])
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", stop)
    assert parts(reply)["thinking"] == whole["thinking"]
    assert parts(reply)["text"] == whole["text"][: whole["text"].index(stop, len("Final Answer: "))]


def test_the_end_of_max_tokens(claude):
    reply = message(claude, thinking=OFF, max_tokens=1)
    assert reply.stop_reason == "max_tokens" and reply.usage.output_tokens == 1


def test_an_answer_that_has_begun(claude, client):
    """Prefilled, the model goes on within its answer, without thinking."""
    begun = [*SUM, {"role": "assistant", "content": "So the result is 0"}]
    reply = message(claude, begun, thinking=OFF)
    going_on = {"continue_final_message": True, "add_generation_prompt": False, "max_answer_tokens": 8}
    expected = chat(client, begun, going_on, max_tokens=100)
    assert parts(reply)["text"] == expected.choices[0].message.content
    with pytest.raises(anthropic.BadRequestError, match="already in its answer"):
        message(claude, begun)


def test_a_thought_that_has_begun(claude):
    whole = parts(message(claude))
    block = {"type": "thinking", "thinking": whole["thinking"][:9], "signature": ""}
    rest = parts(message(claude, [*SUM, {"role": "assistant", "content": [block]}]))
    assert whole["thinking"][:9] + rest["thinking"] == whole["thinking"] and rest["text"] == whole["text"]


def test_several_turns_and_a_system_message(claude, as_openai):
    earlier = message(claude).content
    turns = [*SUM, {"role": "assistant", "content": earlier}, *question("a+1", 6)]
    reply = message(claude, turns, system=[{"type": "text", "text": "Be brief."}], thinking=ON)
    plain = [SUM[0], {"role": "assistant", "content": earlier[1].text}, turns[-1]]
    expected = as_openai(ON, messages=[{"role": "system", "content": "Be brief."}, *plain], max_tokens=100)
    assert parts(reply)["thinking"] == expected.choices[0].message.reasoning_content


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tools": [{"name": "f", "input_schema": {"type": "object"}}]}, "tools are not supported"),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "below max_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": -1}}, "thinking.budget_tokens is -1"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "images are not supported"),
        ({"messages": [{"role": "user", "content": "x" * 500}]}, "256"),
        ({"extra": {"temperature": 1.5}}, "temperature is 1.5"),
        ({"extra": {"top_a": 1}}, "'top_a' is not supported"),
    ],
)
def test_a_bad_request(claude, given, words):
    with pytest.raises(anthropic.BadRequestError, match=words) as raised:
        message(claude, **given)
    assert raised.value.body["type"] == "error" and raised.value.body["error"]["type"] == "invalid_request_error"


def test_other_errors(claude, server):
    with pytest.raises(anthropic.NotFoundError, match="'another' does not exist"):
        message(claude, model="another")
    stranger = claude.with_options(api_key="sk-of-somebody-else")
    for call in (lambda: message(stranger), lambda: stranger.messages.count_tokens(model=NAME, messages=SUM)):
        with pytest.raises(anthropic.AuthenticationError, match="a key is needed"):
            call()
    with pytest.raises(anthropic.APIStatusError) as raised:
        message(claude, [{"role": "user", "content": "x" * 5 * 2**20}])
    assert raised.value.status_code == 413 and raised.value.body["error"]["type"] == "request_too_large"
    assert KEY not in "".join(server.said)


def test_more_than_can_wait(claude, client, server):
    asked = {"extra": {"thinking": {"min_tokens": 200}}, "n": 400, "temperature": 1.0, "stream": True}
    with chat(client, SUM, **asked) as stream:
        next(stream)
        with pytest.raises(anthropic.RateLimitError, match="try again later"):
            message(claude)
    server.wait_until_idle()
    assert joined_parts(list(chat(client, SUM, stream=True)))["content"]
