"""OpenAI's official client drives the server: chats, streams, budgets in every spelling, choices and errors."""

from __future__ import annotations

import openai
import pytest

from tests.serving.running import ASKED, NAME, chat, joined_parts, question, wait_until

SUM = question("a+2 b-3")
BUDGET = 20
MAXIMA = {  # ways to say that the model thinks for at most BUDGET tokens
    "own": {"thinking": {"max_tokens": BUDGET}},
    "Anthropic": {"thinking": {"type": "enabled", "budget_tokens": BUDGET}},
    "vLLM": {"thinking_token_budget": BUDGET},
    "Qwen": {"thinking_budget": BUDGET},
    "Qwen, with its switch": {"enable_thinking": True, "thinking_budget": BUDGET},
    "OpenRouter": {"reasoning": {"max_tokens": BUDGET}},
    "OpenRouter, by effort": {"reasoning": {"effort": "low"}},
    "several that agree": {"thinking": {"max_tokens": BUDGET}, "thinking_budget": BUDGET, "reasoning_effort": "low"},
}
OFF = (
    {"thinking": {"type": "disabled"}},
    {"enable_thinking": False},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"thinking_budget": 0},
    {"thinking_token_budget": 0},
    {"reasoning": {"enabled": False}},
    {"reasoning": {"effort": "none"}},
    {"reasoning_effort": "none"},
)
HOT = 2.0  # at 1 the tiny model writes nearly the same each time
MANY = 400  # choices that take the server a while


def test_a_chat(client):
    reply = chat(client, SUM)
    (choice,) = reply.choices
    message, usage = choice.message, reply.usage
    assert reply.model == NAME and reply.object == "chat.completion" and reply.id.startswith("chatcmpl-")
    assert message.role == "assistant" and message.content and message.reasoning_content.startswith("\na ")
    assert message.reasoning == message.reasoning_content and "<|im_" not in message.content + message.reasoning
    assert choice.finish_reason == "stop" and choice.logprobs is None
    assert choice.thinking_end in ("natural", "context") and choice.ignores_used == 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens


STREAMED = {
    "greedy": {},
    "sampled": {"temperature": HOT, "seed": 3},
    "cut": {"max_tokens": 30},
    "choices": {"n": 3, "temperature": HOT, "seed": 3},
    "stop": {"stop": ["6", "9", "1"], "n": 2, "temperature": HOT, "seed": 3},
    "without thinking": {"reasoning_effort": "none"},
}


@pytest.mark.parametrize("kind", STREAMED)
def test_a_stream_says_the_same(client, kind):
    whole = chat(client, SUM, **STREAMED[kind])
    chunks = list(chat(client, SUM, stream=True, stream_options={"include_usage": True}, **STREAMED[kind]))
    *chunks, last = chunks
    assert last.choices == [] and all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
    assert (last.usage.total_tokens, last.usage.completion_tokens_details) == (
        whole.usage.total_tokens,
        whole.usage.completion_tokens_details,
    )
    assert len({chunk.id for chunk in [*chunks, last]}) == 1
    for choice in whole.choices:
        texts, message = joined_parts(chunks, choice.index), choice.message
        assert texts["content"] == message.content
        assert texts["reasoning_content"] == texts["reasoning"] == (message.reasoning_content or "")
        of_choice = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == choice.index]
        assert of_choice[0].delta.role == "assistant"
        assert [one.finish_reason for one in of_choice if one.finish_reason] == [choice.finish_reason]
        assert of_choice[-1].model_extra == choice.model_extra
        parts = ["content" if one.delta.content else "reasoning" for one in of_choice[1:-1]]
        assert parts == sorted(parts, reverse=True), "no thinking after the answer has begun"


def test_a_stream_without_usage_and_its_first_deltas(client):
    chunks = list(chat(client, SUM, stream=True))
    assert all(len(chunk.choices) == 1 for chunk in chunks), "the usage is not told unless it is asked for"
    assert len(chunks) > 4, "the text comes in pieces"


@pytest.mark.parametrize("spelling", MAXIMA)
def test_a_maximum_in_every_spelling(client, spelling):
    expected = chat(client, SUM, {"thinking": {"max_tokens": BUDGET}})
    reply = chat(client, SUM, MAXIMA[spelling])
    assert reply.choices[0].message == expected.choices[0].message
    assert reply.usage.completion_tokens_details.reasoning_tokens == BUDGET
    assert reply.choices[0].thinking_end == "forced"


def test_an_effort_that_the_client_knows(client):
    expected = chat(client, SUM, MAXIMA["own"])
    assert chat(client, SUM, reasoning_effort="low").choices[0].message == expected.choices[0].message
    unbounded = chat(client, SUM).choices[0].message
    for extra in ({"reasoning_effort": "high"}, {"thinking": {"max_tokens": -1}}, {"thinking_budget": -1}):
        assert chat(client, SUM, extra).choices[0].message == unbounded


@pytest.mark.parametrize("extra", OFF, ids=str)
def test_thinking_turned_off_in_every_spelling(client, extra):
    (choice,) = (reply := chat(client, SUM, extra)).choices
    assert choice.message.reasoning_content is None and choice.message.content
    assert choice.thinking_end is None and reply.usage.completion_tokens_details.reasoning_tokens == 0
    assert choice.message == chat(client, SUM, OFF[0]).choices[0].message


def test_a_minimum_and_waits(client):
    eager = {"max_tokens": 100, "end_bias": 60.0}  # the model would end its thinking at once
    early = chat(client, SUM, {"thinking": eager})
    assert early.choices[0].thinking_end == "natural"
    assert early.usage.completion_tokens_details.reasoning_tokens < 60
    least = chat(client, SUM, {"thinking": eager | {"min_tokens": 60}})
    assert 60 <= least.usage.completion_tokens_details.reasoning_tokens <= 100
    waits = chat(client, SUM, {"thinking": eager | {"num_ignore": 2, "ignore_string": "Wait"}}).choices[0]
    assert waits.ignores_used == 2 and waits.message.reasoning_content.count("Wait") == 2
    turns = chat(client, SUM, {"thinking": eager | {"num_ignore": 2, "ignore_string": ["Hm", "But"]}}).choices[0]
    thought = turns.message.reasoning_content
    assert thought.index("Hm") < thought.index("But")


def test_choices_and_seeds(client):
    def texts(**given):
        reply = chat(client, SUM, temperature=HOT, n=3, max_tokens=60, **given)
        assert [choice.index for choice in reply.choices] == [0, 1, 2]
        return [(choice.message.reasoning_content, choice.message.content) for choice in reply.choices]

    first = texts(seed=5)
    assert len(set(first)) == 3 and texts(seed=5) == first
    assert not set(texts(seed=6)) & set(first) and texts() != texts()


def test_all_choices_count_in_the_usage(client):
    one, three = (chat(client, SUM, {"thinking": {"max_tokens": BUDGET}}, n=n) for n in (1, 3))
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens == 3 * one.usage.completion_tokens
    assert three.usage.completion_tokens_details.reasoning_tokens == 3 * BUDGET


def test_stop_strings_end_the_answer_and_nothing_else(client):
    whole = chat(client, SUM).choices[0].message
    assert whole.content.startswith("Final Answer: ") and len(whole.content) == len("Final Answer: 12")
    stop = whole.content[-1]
    assert stop in whole.reasoning_content, "the thinking has it too"
    cut = chat(client, SUM, stop=[stop, "never written"]).choices[0]
    assert cut.message.reasoning_content == whole.reasoning_content
    assert cut.message.content == whole.content[: whole.content.index(stop, len("Final Answer: "))]
    assert cut.finish_reason == "stop" and cut.stop_reason == stop


def test_several_turns(client):
    """Earlier thinking is not read again, as the model's template leaves it out."""
    turns = [*SUM, {"role": "assistant", "content": "06"}, *question("a+1", 6)]
    system = {"role": "system", "content": "Be brief."}
    plain = chat(client, [system, *turns])
    thought = [turn | {"reasoning_content": "a long thought"} if turn["content"] == "06" else turn for turn in turns]
    assert chat(client, [system, *thought]).choices[0].message == plain.choices[0].message
    parts = [{"role": "user", "content": [{"type": "text", "text": SUM[0]["content"]}]}]
    assert chat(client, parts).choices[0].message == chat(client, SUM).choices[0].message
    assert plain.usage.prompt_tokens > chat(client, turns).usage.prompt_tokens


def test_completions(client):
    def complete(prompt, **given):
        return client.completions.create(model=NAME, prompt=prompt, **{"temperature": 0} | given)

    two = complete(["1+1=", "Start: 07."], max_tokens=9, n=2, temperature=HOT, seed=1)
    assert [choice.index for choice in two.choices] == [0, 1, 2, 3] and two.usage.completion_tokens <= 36
    assert two.choices[0].text != two.choices[1].text
    assert len(complete("1+1=").choices[0].text) <= 16 * len("Answer"), "16 tokens by default"
    echoed = complete("1+1=", echo=True, max_tokens=9).choices[0].text
    assert echoed == "1+1=" + complete("1+1=", max_tokens=9).choices[0].text
    pieces = list(complete("1+1=", max_tokens=9, echo=True, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == echoed
    thinks = complete("1+1=", max_tokens=60, extra_body={"thinking": {"max_tokens": BUDGET}}).choices[0]
    assert thinks.reasoning_content and thinks.thinking_end == "forced" and thinks.text


def test_models(client, server):
    (card,) = client.models.list().data
    assert card.id == NAME and card.max_model_len == 256 and card.object == "model"
    assert client.models.retrieve(NAME) == card
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "tools are not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "text"),
        ({"temperature": -1.0}, "temperature", "temperature is -1"),
        ({"top_logprobs": 3}, "top_logprobs", "needs logprobs"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": [{"role": "judge", "content": "?"}]}, "messages[0].role", "'judge'"),
        ({"messages": [{"role": "user", "content": "x" * 500}]}, None, "256"),
        ({"extra_body": {"thinking": {"max_tokens": 5, "min_tokens": 9}}}, "thinking.min_tokens", "above"),
        ({"extra_body": {"thinking_budget": 5, "reasoning": {"max_tokens": 6}}}, "reasoning.max_tokens", "disagree"),
        ({"extra_body": {"mirostat": 1}}, "mirostat", "'mirostat' is not supported"),
    ],
)
def test_a_bad_request(client, given, param, words):
    asked = {"model": NAME, "messages": ASKED} | given
    with pytest.raises(openai.BadRequestError, match="(?s)" + words.replace("[", r"\[")) as raised:
        client.chat.completions.create(**asked)
    assert raised.value.param == param and raised.value.type == "invalid_request_error"


def test_other_errors(client, server):
    with pytest.raises(openai.NotFoundError, match="'another' does not exist") as raised:
        client.chat.completions.create(model="another", messages=ASKED)
    assert raised.value.code == "model_not_found"
    stranger = client.with_options(api_key="sk-of-somebody-else")
    for call in (stranger.models.list, lambda: chat(stranger), lambda: chat(stranger, stream=True)):
        with pytest.raises(openai.AuthenticationError, match="a key is needed"):
            call()
    assert "sk-of" not in "".join(server.said)


def test_more_than_can_wait(client, server):
    with chat(client, SUM, {"thinking": {"min_tokens": 200}}, n=MANY, temperature=1.0, stream=True) as stream:
        next(stream)
        wait_until(lambda: server.ask("/health").json["running"] > 0)
        with pytest.raises(openai.RateLimitError, match="try again later") as raised:
            chat(client, SUM)
        assert int(raised.value.response.headers["retry-after"]) > 0
    server.wait_until_idle()
    assert chat(client, SUM).choices[0].message.content
