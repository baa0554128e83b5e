"""Runs of the tiny task: which steps are right, told by the running sums alone, and what the made-up ones are like."""

import numpy as np
import pytest

from s1_jax.data.chat import ANSWER_START, THINK_START
from s1_jax.data.synthetic import Problem, sample_problem
from s1_jax.data.synthetic_runs import is_right, right_steps, sample_run

PROBLEM = Problem(16, (-8, 9, -4, -3, 4))  # 08 17 13 10 14
ROUND = ["a 16-8=08", "b 08+9=17", "c 17-4=13", "d 13-3=10", "So 10."]
REST = ["Wait, more.", "e 10+4=14", "So 14."]


@pytest.mark.parametrize(
    "steps, right",
    [
        ([*ROUND, *REST, "Answer: 14"], 9),
        ([*ROUND, *REST, "Wait, all done.", "So 14.", "Answer: 14<|im_end|>"], 11),
        ([*ROUND, *REST[:2], "Final Answer: 14"], 8),
        ([*ROUND, "Answer: 10"], 5),  # stopped too early
        ([*ROUND, "Wait, all done.", "So 10.", "Answer: 14"], 5),
        ([*ROUND, *REST, "Wait, more.", "So 14."], 8),
        (["a 16-8=09", "b 09+9=18"], 0),
        (["a 16-8=08", "b 08-9=99", "b 08+9=17"], 1),  # what is put right later stays wrong
        (["a 16-8=08", "c 08-4=04"], 1),  # left out
        (["a 16-8=08", "b 07+9=16"], 1),
        ([*ROUND[:4], "So 13."], 4),
        ([*ROUND[:3], "d 13-", "Final Answer: 14"], 5),  # cut short
        ([*ROUND[:3], "d 17", "Answer: 14"], 3),
        ([*ROUND, *REST, "Answer: 10"], 8),
        ([""], 1),  # only begun
        (["nonsense"], 0),
    ],
)
def test_steps_are_right_up_to_the_first_that_is_not(steps, right):
    assert right_steps(PROBLEM, steps) == [True] * right + [False] * (len(steps) - right)


@pytest.mark.parametrize(
    "answer, right",
    [
        (f"\n{ANSWER_START}\nAnswer: 14<|im_end|>\n", True),
        (f"\n{ANSWER_START}\nFinal Answer: 14", True),
        (f"\n{ANSWER_START}\nAnswer: 41<|im_end|>", False),
        (f"\n{ANSWER_START}\nAnswer:", False),
        ("\nAnswer: 14", False),  # still thinking
    ],
)
def test_an_outcome_is_right_if_its_answer_is(answer, right):
    assert is_right(PROBLEM, f"{THINK_START}\na 16-8=09{answer}") == right


def test_runs_come_right_and_wrong_in_every_way():
    rng = np.random.default_rng(0)
    outcomes, stopped_early, slipped = [], 0, 0
    for _ in range(500):
        problem = sample_problem(rng)
        run = sample_run(rng, problem)
        thinking, marker, answer = run.removeprefix(f"{THINK_START}\n").partition(f"\n{ANSWER_START}")
        right = right_steps(problem, [*thinking.split("\n"), *([answer.strip()] if marker else [])])
        outcomes.append(is_right(problem, run))
        stopped_early += right[-2:] == [True, False]
        slipped += not all(right[:-1])
        assert not problem.held_out
        assert not (all(right) and marker and not outcomes[-1])
    assert 0.3 < np.mean(outcomes) < 0.6
    assert stopped_early > 50 and slipped > 30
