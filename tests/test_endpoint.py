"""An endpoint that does not do its part: what may pass is asked again, within bounds, and no key is told."""

import threading
import time
from email.utils import formatdate

import pytest

from s1_jax.config import JudgeConfig
from s1_jax.endpoint import (
    EMPTY_TRIES,
    LONGEST_ASKED,
    LONGEST_PAUSE,
    Endpoint,
    NoAnswer,
    Reply,
    asked_pause,
    parse,
)
from tests.curation.stand_in_endpoint import CUT, StandInEndpoint, completion

KEY = "sk-not-to-be-seen"
FAST = 10**6  # requests a minute: no pause between them
HALF = completion("a" * 1000)[:500]


class Time:
    """A clock that goes on only where somebody sleeps."""

    def __init__(self):
        self.now, self.pauses = 100.0, []

    def sleep(self, seconds):
        self.now += seconds
        self.pauses += [seconds] if seconds > 0.5 else []

    def clock(self):
        return self.now


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THE_KEY", KEY + "\n")
    with StandInEndpoint() as server:
        yield server


def endpoint(server, **options):
    made = Time()
    defaults = {"requests_per_minute": FAST, "attempts": 4, "key_variable": "THE_KEY"}
    config = JudgeConfig("some-model", server.url, **defaults | options)
    return Endpoint(config, "the model", made.sleep, made.clock), made.pauses


def ask(model, prompt="why?"):
    return model.ask(prompt, temperature=0.5, max_tokens=9).text


def ask_many(model, prompts, concurrent=4, **options):
    return dict(model.ask_many(prompts, temperature=0, max_tokens=9, concurrent=concurrent, **options))


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
    ],
)
def test_thinking_is_told_from_the_answer(server, body, reply):
    server.says = lambda prompt: (200, body)
    model, _ = endpoint(server)
    assert model.ask("why?", temperature=0, max_tokens=9) == reply


@pytest.mark.parametrize("body", [[], {}, {"choices": []}, {"choices": [None]}, {"choices": [{"message": "yes"}]}, 7])
def test_what_is_no_completion(body):
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        parse(body)


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
        ((400, f"too long {KEY}"), 1, "status 400", False),
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
        made.now += 1
        return made.now

    server.says = lambda prompt: (200, completion("a" * 10**6))
    config = JudgeConfig("some-model", server.url, requests_per_minute=FAST, attempts=1, timeout_seconds=3)
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


def test_many_at_a_time(server):
    server.says = lambda prompt: time.sleep(0.05) or f"{prompt}!"
    prompts = [str(i) for i in range(40)]
    replies = ask_many(endpoint(server)[0], prompts, concurrent=8)
    assert {place: reply.text for place, reply in replies.items()} == {i: f"{i}!" for i in range(40)}
    assert sorted(server.prompts) == sorted(prompts)
    assert 4 <= server.most_at_once <= 8


def test_many_share_one_limit(server):
    config = JudgeConfig("some-model", server.url, requests_per_minute=60 * 20)
    began = time.monotonic()
    ask_many(Endpoint(config, "the model"), ["?"] * 9, concurrent=9)
    assert 8 / 20 <= time.monotonic() - began < 2


def test_a_pause_one_is_told_of_is_one_for_all(server):
    config = JudgeConfig("some-model", server.url, requests_per_minute=FAST)
    told, came = threading.Event(), []

    def says(prompt):
        if not told.is_set():
            told.set()
            return 429, "", {"Retry-After": "1.2"}
        came.append(time.monotonic())
        return time.sleep(0.2) or "yes"

    server.says = says
    began = time.monotonic()
    ask_many(Endpoint(config, "the model"), ["?"] * 6, concurrent=2)
    assert len(came) == 6
    under_way = 2  # the other thread's own, and what it took before the first was told
    assert sum(moment < began + 1.2 for moment in came) <= under_way


def test_failures_stay_with_their_prompts(server):
    server.says = lambda prompt: {"b": (400, ""), "c": (200, "garbage"), "d": ""}.get(prompt, "yes")
    replies = ask_many(endpoint(server)[0], list("abcde"))
    assert [replies[i].text for i in (0, 4)] == ["yes", "yes"]
    assert [replies[i].reason for i in (1, 2, 3)] == [
        "status 400",
        "not a completion in OpenAI's form",
        "an empty answer",
    ]
    assert server.prompts.count("d") == EMPTY_TRIES


def test_it_ends_at_once_when_asked_to(server):
    server.says = lambda prompt: "yes" if prompt == "0" else (429, "", {"Retry-After": "300"})
    stop = []
    config = JudgeConfig("some-model", server.url, requests_per_minute=FAST)
    began, came = time.monotonic(), []
    for place, _ in Endpoint(config, "the model").ask_many(
        [str(i) for i in range(99)], temperature=0, max_tokens=9, concurrent=3, asked_to_stop=lambda: bool(stop)
    ):
        came.append(place)
        stop.append(True)
    assert came == [0] and time.monotonic() - began < 2
    threads = [thread for thread in threading.enumerate() if "work" in thread.name]
    for thread in threads:
        thread.join(2)
    assert not any(thread.is_alive() for thread in threads), "nobody waits for a pause of minutes"


def test_once_there_is_enough_what_is_under_way_still_comes(server):
    """But nothing is asked again, and nobody waits for a pause to end."""

    def says(prompt):
        if prompt == "3":
            return 429, "", {"Retry-After": "300"}
        return time.sleep(0.1 if prompt == "0" else 0.5) or "yes"

    server.says = says
    config = JudgeConfig("some-model", server.url, requests_per_minute=FAST)
    model, came, began = Endpoint(config, "the model"), [], time.monotonic()
    for place, _ in model.ask_many([str(i) for i in range(50)], temperature=0, max_tokens=9, concurrent=4):
        came.append(place)
        model.enough.set()
    assert sorted(came) == [0, 1, 2] and len(server.asked) == 4 and time.monotonic() - began < 5
