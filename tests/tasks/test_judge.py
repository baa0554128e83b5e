"""What the judge is asked, and how its reply is read."""

import pytest

from s1_jax.config import EndpointConfig, GradeConfig, JudgeConfig
from s1_jax.errors import UserError
from s1_jax.tasks.judge import LONGEST, decision, judge_prompt


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        *(("yes", True), ("Yes.", True), (" NO\n", False), ('"no"', False), ("**Yes**", True), ("`yes`", True)),
        *(
            ("\u201cno\u201d", False),
            ("yes!", True),
            ("_No._", False),
            ("\\boxed{yes}", True),
            ("$\\boxed{\\text{No}}$.", False),
        ),
        *(("Answer: yes", True), ("**Final Answer:** No", False), ("Verdict: **yes**", True), ("# Yes", True)),
        ("The two fractions are the same.\n\nYes", True),
        ("No.\n\nThe student forgot the sign.", False),
        ("Is 1/2 the same as 0.5? yes\n**No**", False),
        *(("", None), ("yes, but", None), ("maybe", None), ("no yes", None), ("The answer is yes", None)),
        *(
            ("Yes\nOn second thought:\nNo", None),
            ("yesterday", None),
            ("Nope", None),
            ("not yes", None),
            ("yes no", None),
        ),
        *(("The answer is\nyes or no?", None), ("\n \n", None), ("I cannot say.\nSorry.", None)),
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


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"base_url": "example.org/v1", "model": "m"}, "judge.base_url .* http"),
        ({"base_url": "http://example.org/v1"}, "judge.base_url needs judge.model"),
        ({"model": "m", "attempts": 0}, "judge.attempts"),
        ({"model": "m", "requests_per_minute": 0}, "judge.requests_per_minute"),
        ({"model": "m", "max_tokens": 0}, "judge.max_tokens"),
        ({"model": "m", "temperature": -1.0}, "judge.temperature"),
        ({"model": "m", "timeout_seconds": float("nan")}, "judge.timeout_seconds"),
    ],
)
def test_mistakes_in_options(options, word):
    with pytest.raises(UserError, match=word):
        JudgeConfig(**options)


def test_a_judge_has_the_options_of_every_model_that_is_asked():
    judge = GradeConfig().judge
    assert isinstance(judge, EndpointConfig) and not judge.model
    assert judge.max_tokens >= 4096, "a judge that thinks needs them"
