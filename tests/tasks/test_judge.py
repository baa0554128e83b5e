"""What the judge is asked, how its reply is read, and what happens where the endpoint does not do its part."""

import time
from email.utils import formatdate

import pytest

from s1_jax.config import JudgeConfig, RunError, UserError
from s1_jax.tasks.judge import (
    LONGEST,
    LONGEST_ASKED,
    LONGEST_PAUSE,
    MAX_TOKENS,
    Endpoint,
    asked_pause,
    decision,
    judge_prompt,
    open_judge,
)
from tests.tasks.judge_server import JudgeServer

KEY = "sk-not-to-be-seen"
FAST = 10**6  # requests a minute: no pause between them


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THE_KEY", KEY + "\n")
    with JudgeServer() as server:
        yield server


def endpoint(server, **options):
    pauses = []
    defaults = {"requests_per_minute": FAST, "attempts": 4, "key_variable": "THE_KEY"}
    config = JudgeConfig("some-model", server.url, **defaults | options)
    return Endpoint(config, lambda seconds: pauses.append(seconds) if seconds > 0.5 else None), pauses


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        *(("yes", True), ("Yes.", True), (" NO\n", False), ('"no"', False), ("**Yes**", True)),
        *(("", None), ("yes, but", None), ("maybe", None), ("no yes", None), ("The answer is yes", None)),
    ],
)
def test_only_yes_and_no_decide(reply, said):
    assert decision(reply) is said


def test_the_prompt_shows_problem_right_and_given_answer():
    prompt = judge_prompt("How {many}?", "7", "seven {0}")
    assert "How {many}?" in prompt and "Right answer:\n7\n" in prompt and "seven {0}" in prompt
    long = judge_prompt("?", "7", "a" * LONGEST + "b" * LONGEST)
    assert len(long) < LONGEST + len(judge_prompt("?", "7", "")) + 10
    assert "aaa [...] bbb" in long


def test_one_request(server):
    judge, pauses = endpoint(server)
    assert judge.ask("right?") == "yes" and pauses == []
    ((headers, body),) = server.asked
    assert headers["Authorization"] == f"Bearer {KEY}"
    message = {"role": "user", "content": "right?"}
    assert body == {"model": "some-model", "messages": [message], "temperature": 0, "max_tokens": MAX_TOKENS}


def test_without_a_key_none_is_sent(server, monkeypatch):
    monkeypatch.delenv("THE_KEY")
    endpoint(server)[0].ask("right?")
    assert "Authorization" not in server.asked[0][0]


@pytest.mark.parametrize("failure", [(429, "slow down"), (500, "oops"), (503, ""), (200, "garbage"), (200, '{"a": 1}')])
def test_what_may_pass_is_asked_again(server, failure):
    said = iter([failure, failure, "no"])
    server.says = lambda prompt: next(said)
    judge, pauses = endpoint(server)
    assert judge.ask("right?") == "no"
    assert pauses == [1, 2]


@pytest.mark.parametrize(
    ("failure", "requests", "words"),
    [
        ((500, KEY), 4, "status 500"),
        ((429, KEY), 4, "status 429"),
        ((200, "garbage " + KEY), 4, "not a completion"),
        ((200, '{"choices": [{"message": {"content": null}}]}'), 4, "not a completion"),
        ((401, f"wrong key {KEY}"), 1, "status 401"),
        ((307, ""), 1, "status 307"),
        ((302, ""), 1, "status 302"),
    ],
)
def test_it_gives_up_in_one_line_that_tells_no_key(server, failure, requests, words):
    server.says = lambda prompt: failure
    judge, pauses = endpoint(server)
    with pytest.raises(RunError, match=words) as error:
        judge.ask("right?")
    assert len(server.asked) == requests and len(pauses) == requests - 1
    assert KEY not in str(error.value) and "\n" not in str(error.value) and server.url in str(error.value)
    assert error.value.__cause__ is None and error.value.__context__ is None


def test_a_server_that_is_slow_or_gone(server):
    server.says = lambda prompt: time.sleep(0.4) or "yes"
    with pytest.raises(RunError, match="TimeoutError"):
        endpoint(server, timeout_seconds=0.1, attempts=2)[0].ask("right?")
    config = JudgeConfig("some-model", "http://127.0.0.1:9/v1", requests_per_minute=FAST, attempts=1)
    with pytest.raises(RunError, match="ConnectionRefusedError"):
        open_judge(config)("right?")


def test_pauses_are_bounded(server):
    server.says = lambda prompt: (500, "")
    judge, pauses = endpoint(server, attempts=9)
    with pytest.raises(RunError):
        judge.ask("right?")
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
    judge, pauses = endpoint(server)
    assert judge.ask("right?") == "no" and pauses == paused


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
    judge, pauses = endpoint(server)
    assert judge.ask("right?") == "no" and pauses == [pytest.approx(42, abs=1.5)]
    wrong_clock = {"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
    for until in ("Sun, 06 Nov 1994 08:50:37 GMT", "Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"):
        assert asked_pause(wrong_clock | {"Retry-After": until}) == 60
        assert asked_pause({"Retry-After": until}) == 0, "long past"
    assert asked_pause(wrong_clock) == 0


def test_a_pause_that_is_too_long_is_told_in_the_end(server):
    server.says = lambda prompt: (429, "", {"Retry-After": "7200"})
    judge, pauses = endpoint(server, attempts=2)
    with pytest.raises(RunError, match=r"status 429, wait 7,200 seconds"):
        judge.ask("right?")
    assert pauses == [LONGEST_ASKED]


def test_requests_a_minute(server):
    judge, pauses = endpoint(server, requests_per_minute=30)
    for _ in range(3):
        judge.ask("right?")
    assert len(pauses) == 2 and all(
        1.9 < pause <= 2 + 2 for pause in pauses
    )  # no time passes: the pauses are not slept


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"base_url": "example.org/v1", "model": "m"}, "http"),
        ({"base_url": "http://example.org/v1"}, "judge.model"),
        ({"model": "m", "attempts": 0}, "attempts"),
        ({"model": "m", "requests_per_minute": 0}, "requests_per_minute"),
    ],
)
def test_mistakes_in_options(options, word):
    with pytest.raises(UserError, match=word):
        JudgeConfig(**options)


def test_a_judge_needs_a_model():
    with pytest.raises(UserError, match="--judge.model"):
        open_judge(JudgeConfig())
