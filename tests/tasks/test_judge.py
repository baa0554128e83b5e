"""What the judge is asked, and how its reply is read."""

import pytest

from s1_jax.config import JudgeConfig, RunError, UserError
from s1_jax.tasks.judge import LONGEST, MAX_TOKENS, decision, judge_prompt, open_judge
from tests.curation.stand_in_endpoint import StandInEndpoint

KEY = "sk-not-to-be-seen"
FAST = 10**6  # requests a minute: no pause between them


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THE_KEY", KEY + "\n")
    with StandInEndpoint() as server:
        yield server


def judge(server, **options):
    defaults = {"requests_per_minute": FAST, "attempts": 1, "key_variable": "THE_KEY"}
    return open_judge(JudgeConfig("some-model", server.url, **defaults | options))


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
    assert judge(server)("right?") == "yes"
    ((headers, body),) = server.asked
    assert headers["Authorization"] == f"Bearer {KEY}"
    message = {"role": "user", "content": "right?"}
    assert body == {"model": "some-model", "messages": [message], "temperature": 0, "max_tokens": MAX_TOKENS}


def test_it_gives_up_in_one_line_that_tells_no_key(server):
    server.says = lambda prompt: (401, f"wrong key {KEY}")
    with pytest.raises(RunError, match="^the judge at .* does not answer .status 401.*kept$") as error:
        judge(server, attempts=4)("right?")
    assert len(server.asked) == 1 and server.url in str(error.value) and KEY not in str(error.value)


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
