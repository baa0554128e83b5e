"""A thought that is cut and continued over the wire, and the prefix cache that makes it cheap."""

from __future__ import annotations

import openai
import pytest

from tests.serving.running import chat, question

QUESTIONS = ("a+2 b-3", "a+2 b-3 c+7 d-1", "a-9", "c+7 a+5")
BUDGET = {"thinking": {"max_tokens": 24}, "max_answer_tokens": 8}
CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}
LENGTH = 40  # tokens of a whole reply
LONG = "Work out each step in a line of its own, and do not leave one out. " * 2
PAGE = 32  # tokens that the prefix cache keeps together


def continued(client, asked, extra=None, **given):
    """Continue the last message, which is the assistant's."""
    return chat(client, asked, {**BUDGET, **CONTINUED, **(extra or {})}, **given)


def tokens_of(choice):
    return [one["token"] for one in choice.logprobs.reasoning_content]


@pytest.mark.parametrize("steps", QUESTIONS)
def test_a_thought_continues_as_it_was(client, model, steps):
    asked = question(steps)
    (whole,) = (reply := chat(client, asked, BUDGET, max_tokens=LENGTH, logprobs=True)).choices
    tokens = tokens_of(whole)
    assert "".join(tokens) == whole.message.reasoning_content and len(tokens) == 24
    for count in (1, len(tokens) // 2, len(tokens) - 1, len(tokens)):
        begun = "".join(tokens[:count])
        assert len(model.tokenizer.encode(begun)) == count, "the text has the same tokens"
        fork = [*asked, {"role": "assistant", "reasoning_content": begun}]
        rest = continued(client, fork, max_tokens=LENGTH - count)
        (choice,) = rest.choices
        assert begun + choice.message.reasoning_content == whole.message.reasoning_content
        assert choice.message.content == whole.message.content
        assert (choice.finish_reason, choice.thinking_end) == (whole.finish_reason, whole.thinking_end)
        assert rest.usage.prompt_tokens == reply.usage.prompt_tokens + count
        assert rest.usage.completion_tokens == reply.usage.completion_tokens - count


def test_a_thought_that_goes_on_elsewhere(client):
    """Think on from here: the same beginning with another budget, or with other words after it."""
    asked = question("a+2 b-3")
    thought = chat(client, asked, BUDGET).choices[0].message.reasoning_content
    longer = {"thinking": {"max_tokens": 60, "min_tokens": 50}}
    more = continued(client, [*asked, {"role": "assistant", "reasoning_content": thought}], longer)
    assert more.usage.completion_tokens_details.reasoning_tokens >= 50 - 24
    waits = continued(client, [*asked, {"role": "assistant", "reasoning_content": thought + "\nWait"}], longer)
    assert waits.choices[0].message.reasoning_content != more.choices[0].message.reasoning_content
    stream = continued(client, [*asked, {"role": "assistant", "reasoning_content": thought}], longer, stream=True)
    deltas = [getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in stream]
    assert "".join(deltas) == more.choices[0].message.reasoning_content


def test_an_answer_continues_as_it_was(client):
    asked = question("a+2 b-3")
    whole = chat(client, asked, BUDGET).choices[0].message
    assert len(whole.content) > len("Final Answer: ")
    begun = {"role": "assistant", "reasoning_content": whole.reasoning_content, "content": whole.content[:-1]}
    rest = chat(client, [*asked, begun], CONTINUED | {"max_answer_tokens": 8})
    assert rest.choices[0].message.content == whole.content[-1] and rest.choices[0].message.reasoning_content is None
    assert rest.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="already in its answer"):
        chat(client, [*asked, begun], CONTINUED | {"thinking": {"max_tokens": 9}})


def test_a_fork_that_cannot_be(client):
    for asked, words in (
        ([*question("a+1"), {"role": "assistant", "content": ""}], "it is empty"),
        (question("a+1"), "messages\\[0\\].role"),
        ([*question("a+1"), {"role": "assistant", "reasoning_content": "x" * 300}], "256"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            chat(client, asked, CONTINUED)


def test_a_common_beginning_is_read_once(client):
    system = {"role": "system", "content": LONG}
    chats = [[system, *question(steps)] for steps in ("a+7 b-1", "a+7 b-2", "a+7 b-1")]
    first, second, third = (chat(client, asked, {"thinking": {"max_tokens": 9}}) for asked in chats)
    counts = [reply.usage.prompt_tokens_details.cached_tokens for reply in (first, second, third)]
    assert counts[1] >= 2 * PAGE and all(count % PAGE == 0 for count in counts) and counts[2] >= counts[1] > counts[0]
    assert third.choices[0].message == first.choices[0].message, "what is kept is what would be read"
    assert third.usage.prompt_tokens == first.usage.prompt_tokens > counts[2]


def test_a_fork_finds_its_own_beginning(client):
    asked = [{"role": "system", "content": LONG}, *question("c+7 a+5")]
    budget = {"thinking": {"max_tokens": 60, "min_tokens": 60}, "max_answer_tokens": 8}
    reply = chat(client, asked, budget)
    thought = reply.choices[0].message.reasoning_content
    fork = continued(client, [*asked, {"role": "assistant", "reasoning_content": thought[:40]}], budget)
    assert fork.usage.prompt_tokens_details.cached_tokens >= reply.usage.prompt_tokens // PAGE * PAGE


def test_other_turns_are_no_hit(client):
    one, other = (chat(client, [{"role": "system", "content": text * 8}, *question("a+1")]) for text in ("ab", "ba"))
    assert other.usage.prompt_tokens_details.cached_tokens == 0
    assert one.usage.prompt_tokens == other.usage.prompt_tokens
