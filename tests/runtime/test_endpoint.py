"""An endpoint that does not do its part: what may pass is asked again, within bounds, and no key is told."""

import json
import time
from email.utils import formatdate

import pytest

from s1_jax.config import JudgeConfig
from s1_jax.runtime.endpoint import LONGEST_ASKED, LONGEST_PAUSE, Endpoint, NoAnswer, Reply, asked_pause
from tests.curation.stand_in_endpoint import CUT, completion
from tests.runs import PATIENCE
from tests.runtime.asking import FAST, KEY, Time, ask, endpoint

HALF = completion("a" * 1000)[:500]


def test_one_request(server):
    model, pauses = endpoint(server)
    assert ask(model) == "yes" and pauses == []
    ((headers, body),) = server.asked
    assert headers["Authorization"] == f"Bearer {KEY}"
    message = {"role": "user", "content": "why?"}
    assert body == {"model": "some-model", "messages": [message], "temperature": 0.5, "max_tokens": 9}


def test_without_a_key_none_is_sent(server, monkeypatch):
    monkeypatch.delenv("THE_KEY")
    ask(endpoint(server)[0])
    assert "Authorization" not in server.asked[0][0]


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (completion(" 4 ", tokens=(7, 9)), Reply("", "4", "stop", 7, 9)),
        (completion("4", reasoning_content="2+2\n"), Reply("2+2", "4", "stop", 0, 0)),
        (completion("4", reasoning="2+2"), Reply("2+2", "4", "stop", 0, 0)),
        (completion("<think>\n2+2\n</think>\n\n4"), Reply("2+2", "4", "stop", 0, 0)),
        (completion("2+2</think>4 </think>"), Reply("2+2", "4 </think>", "stop", 0, 0)),
        (completion("<think>2+", "length"), Reply("2+", "", "length", 0, 0)),
        (completion(None, "length", reasoning="2+"), Reply("2+", "", "length", 0, 0)),
        (completion("</think> is a tag", reasoning="2+2"), Reply("2+2", "</think> is a tag", "stop", 0, 0)),
        (completion("\ud83d x"), Reply("", "? x", "stop", 0, 0)),
        (completion("<think></think>\n\n4"), Reply("", "4", "stop", 0, 0)),
        (completion("<THINK>2+2</Think>4"), Reply("2+2", "4", "stop", 0, 0)),
        (completion("<thinking>2+2</thinking>\n4"), Reply("2+2", "4", "stop", 0, 0)),
        (completion("[THINK]2+2[/THINK]4"), Reply("2+2", "4", "stop", 0, 0)),
        (completion("<think>2</think><think>+2</think>4"), Reply("2\n+2", "4", "stop", 0, 0)),
        (completion("<think>2+2</think>4", reasoning="sum"), Reply("sum\n2+2", "4", "stop", 0, 0)),
        (completion("<think>2+"), Reply("2+", "", "stop", 0, 0)),
        (completion("<|im_start|>think\n2+2\n<|im_start|>answer\n4<|im_end|>"), Reply("2+2", "4", "stop", 0, 0)),
        (completion("2+2\n<|im_start|>answer\n4"), Reply("2+2", "4", "stop", 0, 0)),
        (completion("think\n2+2\nanswer\n4"), Reply("2+2", "4", "stop", 0, 0)),
        (completion("think\n2+2", "length"), Reply("2+2", "", "length", 0, 0)),
        (completion("I think\nthe\nanswer\nis 4"), Reply("", "I think\nthe\nanswer\nis 4", "stop", 0, 0)),
        (completion("<b>4</b> < 5"), Reply("", "<b>4</b> < 5", "stop", 0, 0)),
        (completion("\u0130</think>4 \u0130"), Reply("\u0130", "4 \u0130", "stop", 0, 0)),
        (completion("4", "EOS"), Reply("", "4", "stop", 0, 0)),
        (completion("4", "max_tokens"), Reply("", "4", "length", 0, 0)),
        (completion("4", "something new"), Reply("", "4", "something new", 0, 0)),
        (completion("4", None), Reply("", "4", "stop", 0, 0)),
        (completion(None, "length"), Reply("", "", "length", 0, 0)),
        (completion(None, refusal="I must not."), Reply("", "", "content_filter", 0, 0)),
        (completion([{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]), Reply("", "42", "stop", 0, 0)),
        (
            completion([{"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]}, {"text": "4"}]),
            Reply("2+2", "4", "stop", 0, 0),
        ),
        (completion([], "length"), Reply("", "", "length", 0, 0)),
        (
            completion("4", reasoning_details=[{"type": "reasoning.text", "text": "2+2"}]),
            Reply("2+2", "4", "stop", 0, 0),
        ),
        (completion("4", reasoning={"effort": 1}), Reply("", "4", "stop", 0, 0)),
    ],
)
def test_thinking_is_told_from_the_answer(server, body, reply):
    server.says = lambda prompt: (200, body)
    model, _ = endpoint(server)
    said = model.ask("why?", temperature=0, max_tokens=9)
    assert said == reply and said.whole == (reply.finish == "stop" and reply.text != "")


@pytest.mark.parametrize(
    "failure",
    [
        *((429, "slow down"), (500, "oops"), (503, ""), (200, "garbage"), (200, '{"a": 1}'), (200, HALF), CUT),
        *((200, HALF, {"Content-Length": "9999"}), (200, '{"choices": [{"message": {"content": ["yes"]}}]}')),
    ],
)
def test_what_may_pass_is_asked_again(server, failure):
    said = iter([failure, failure, "no"])
    server.says = lambda prompt: next(said)
    model, pauses = endpoint(server)
    assert ask(model) == "no"
    assert pauses == [1, 2]


@pytest.mark.parametrize(
    ("failure", "requests", "words", "for_all"),
    [
        ((500, KEY), 4, "status 500", False),
        ((429, KEY), 4, "status 429", False),
        ((200, "garbage " + KEY), 4, "not a completion", False),
        ((200, '{"choices": [{"message": {"content": null}}]}'), 4, "not a completion", False),
        (CUT, 4, "RemoteDisconnected", False),
        ((400, f"too long {KEY}"), 1, "status 400: too long", False),
        ((503, f"overloaded, {KEY.upper()}"), 4, "status 503: overloaded", False),
        ((200, json.dumps({"error": {"message": f"no credit for {KEY}"}})), 4, "form: no credit for", False),
        ((200, completion("4", "error")), 4, "not a completion", False),
        ((401, f"wrong key {KEY}"), 1, "status 401", True),
        ((404, ""), 1, "status 404", True),
        ((307, ""), 1, "status 307", True),
        ((302, ""), 1, "status 302", True),
    ],
)
def test_it_gives_up_in_one_line_that_tells_no_key(server, failure, requests, words, for_all):
    server.says = lambda prompt: failure
    model, pauses = endpoint(server)
    with pytest.raises(NoAnswer, match=words) as error:
        ask(model)
    assert error.value.for_all == for_all and words in error.value.reason
    assert len(server.asked) == requests and len(pauses) == requests - 1
    assert KEY not in str(error.value) and "\n" not in str(error.value) and server.url in str(error.value)
    assert error.value.__cause__ is None and error.value.__context__ is None


def test_an_error_whose_body_cannot_be_read_is_an_error_all_the_same(server):
    server.says = lambda prompt: (400, json.dumps({"error": "a" * 10**6}))  # more than is read: no JSON
    with pytest.raises(NoAnswer, match=r"\(status 400\)"):
        ask(endpoint(server)[0])
    server.says = lambda prompt: (400, "half", {"Content-Length": "9999"})
    with pytest.raises(NoAnswer, match="status 400"):
        ask(endpoint(server)[0])


def refuses(server, field, sentence, status=400):
    """As a newer model of OpenAI's does; `body` of the request decides, not the prompt."""

    def says(prompt):
        if field(server.asked[-1][1]):
            return status, json.dumps({"error": {"message": sentence, "type": "invalid_request_error"}})
        return "yes"

    server.says = says


OLD_LIMIT = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
NO_TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
)


def test_an_endpoint_that_wants_the_limit_under_its_newer_name(server):
    refuses(server, lambda body: "max_tokens" in body, OLD_LIMIT)
    model, pauses = endpoint(server, attempts=1)
    assert [ask(model), ask(model)] == ["yes", "yes"] and pauses == []
    asked = [body for _, body in server.asked]
    assert [body.get("max_tokens") for body in asked] == [9, None, None]
    assert [body.get("max_completion_tokens") for body in asked] == [None, 9, 9]
    assert ask(endpoint(server, max_tokens_field="max_completion_tokens")[0]) == "yes" and len(server.asked) == 4
    with pytest.raises(NoAnswer, match="status 400: Unsupported parameter: 'max_tokens'.*max_tokens_field"):
        ask(endpoint(server, max_tokens_field="max_tokens")[0])
    refuses(server, lambda body: True, OLD_LIMIT)
    with pytest.raises(NoAnswer, match="status 400: Unsupported parameter"):
        ask(endpoint(server)[0])
    assert len(server.asked) == 7, "under either name once"


def test_an_endpoint_that_refuses_a_temperature(server):
    refuses(server, lambda body: "temperature" in body, NO_TEMPERATURE)
    with pytest.raises(
        NoAnswer, match="400: Unsupported value: 'temperature'.*temperature None leaves it out"
    ) as error:
        ask(endpoint(server)[0])
    assert error.value.of_prompt and not error.value.for_all and len(server.asked) == 1
    assert endpoint(server)[0].ask("why?", temperature=None, max_tokens=9).text == "yes"
    assert "temperature" not in server.asked[-1][1]


def test_no_limit_at_all(server):
    assert ask(endpoint(server, max_tokens_field="none")[0]) == "yes"
    assert not {"max_tokens", "max_completion_tokens"} & server.asked[0][1].keys()


def test_a_server_that_is_slow_or_gone(server):
    server.says = lambda prompt: time.sleep(0.4) or "yes"
    with pytest.raises(NoAnswer, match="TimeoutError"):
        ask(endpoint(server, timeout_seconds=0.1, attempts=2)[0])
    config = JudgeConfig("some-model", "http://127.0.0.1:9/v1", requests_per_minute=FAST, attempts=1)
    with pytest.raises(NoAnswer, match="ConnectionRefusedError"):
        ask(Endpoint(config, "the model"))


def test_a_reply_that_never_ends(server):
    """Each piece comes in time, the whole does not."""
    made = Time()

    def clock():
        made.now += PATIENCE
        return made.now

    server.says = lambda prompt: (200, completion("a" * 10**6))
    config = JudgeConfig("some-model", server.url, requests_per_minute=FAST, attempts=1, timeout_seconds=3 * PATIENCE)
    with pytest.raises(NoAnswer, match="TimeoutError"):
        ask(Endpoint(config, "the model", made.sleep, clock))


def test_pauses_are_bounded(server):
    server.says = lambda prompt: (500, "")
    model, pauses = endpoint(server, attempts=9)
    with pytest.raises(NoAnswer):
        ask(model)
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]


@pytest.mark.parametrize(
    ("status", "wait", "paused"),
    [
        *((429, "20", [20, 20]), (503, " 7 ", [7, 7]), (429, "2.5", [2.5, 2.5])),
        *((429, "0", [1, 2]), (429, "soon", [1, 2]), (429, "-5", [1, 2]), (429, "", [1, 2])),
        (429, "99999999999999 Nov 08:49:37 99999999999999", [1, 2]),
        (429, "9" * 400, [LONGEST_ASKED, LONGEST_ASKED]),
    ],
)
def test_the_endpoint_may_ask_for_a_longer_pause_within_bounds(server, status, wait, paused):
    said = iter([(status, "", {"Retry-After": wait})] * 2 + ["no"])
    server.says = lambda prompt: next(said)
    model, pauses = endpoint(server)
    assert ask(model) == "no" and pauses == paused


@pytest.fixture
def far_from_greenwich(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
def test_a_date_to_wait_for_counts_from_the_endpoints_own_clock(server):
    said = iter([(429, "", {"Retry-After": formatdate(time.time() + 42, usegmt=True)}), "no"])
    server.says = lambda prompt: next(said)
    model, pauses = endpoint(server)
    assert ask(model) == "no" and pauses == [pytest.approx(42, abs=1.5)]
    wrong_clock = {"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
    for until in ("Sun, 06 Nov 1994 08:50:37 GMT", "Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"):
        assert asked_pause(wrong_clock | {"Retry-After": until}) == 60
        assert asked_pause({"Retry-After": until}) == 0, "long past"
    assert asked_pause(wrong_clock) == 0


def test_a_pause_that_is_too_long_is_told_in_the_end(server):
    server.says = lambda prompt: (429, "", {"Retry-After": "7200"})
    model, pauses = endpoint(server, attempts=2)
    with pytest.raises(NoAnswer, match=r"status 429, wait 7,200 seconds"):
        ask(model)
    assert pauses == [LONGEST_ASKED]


def test_requests_a_minute(server):
    model, pauses = endpoint(server, requests_per_minute=30)
    for _ in range(3):
        ask(model)
    assert pauses == [2, 2]
