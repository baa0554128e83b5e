"""Runs of the tiny task with labels of their steps, right or wrong, on which the tiny reward models are trained.

    Start: 16. Steps: a-8 b+9 c-4.          a 16-8=08        right
                                            b 08+9=18        wrong
                                            c 18-4=14        wrong, as all that builds on it
                                            So 14.           wrong
                                            Answer: 14       wrong; as an outcome too, the answer is 13

Each line is a step. It is right if it and all lines before it agree with the true computation. An answer is therefore
wrong if the thinking stopped too early, even if every line is right. No run here is of a held-out problem.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from s1_jax.data.chat import ANSWER_START, FINAL_ANSWER, THINK_START, TURN_END
from s1_jax.data.synthetic import (
    MAX_STEP,
    MIN_STEP,
    MODULUS,
    UPDATES_PER_ROUND,
    WAIT,
    Problem,
)

STEP_SEPARATOR = "\n"  # of the policy
ANSWER = "Answer: "

EARLY_STOP = 0.55  # fraction of the runs that stop early, on problems where that is possible
SLIPS = (0.85, 0.12, 0.03)  # fractions of the runs with no, one and two errors
CUT = 0.05  # fraction of the runs whose thinking is cut at any character
MISREAD = 0.02  # fraction of the runs whose answer is not the last value computed
BLANK = 0.01  # fraction of the runs that have only a line end
_VALUE = re.compile(r"(?:=|So )(\d\d)")
_ANSWER = re.compile(r"(?:Final )?Answer: ?(\d\d)(?:<\|im_end\|>)?\s*")


def right_steps(problem: Problem, steps: Sequence[str]) -> list[bool]:
    """Return for each step of a run whether it and all steps before it are right; a cut line is judged by its start."""
    found: list[bool] = []
    done, right = 0, True
    for step in steps:
        answer = _ANSWER.fullmatch(step)
        if step in problem.lines[done : done + 1]:
            done += 1
        elif answer:
            right &= answer[1] == problem.answer
        else:
            right &= any(line.startswith(step) for line in _possible(problem, done))
        found.append(right)
    return found


def _possible(problem: Problem, done: int) -> list[str]:
    """List the steps that are right after `done` updates."""
    wait = f"{WAIT}, more." if done < len(problem.updates) else f"{WAIT}, all done."
    answers = [f"{ANSWER}{problem.answer}", f"{FINAL_ANSWER.strip()} {problem.answer}"]
    return [*problem.lines[done : done + 1], f"So {problem.values[done]:02d}.", wait, *answers]


def is_right(problem: Problem, run: str) -> bool:
    """Return whether a run's final answer is right, whatever its steps are; False without an answer."""
    answer = _ANSWER.fullmatch(run.rpartition(ANSWER_START)[2].strip())
    return answer is not None and answer[1] == problem.answer


def sample_run(rng: np.random.Generator, problem: Problem) -> str:
    """Sample the text of a run with its markers: right, or wrong because it stops early or has one or two slips.

    A slip is a wrong result, another operand, another number before it, a missing update, a wrong sum, a "Wait" with
    the wrong words, or an answer that is not the last sum. The lines after a slip continue from it.
    """
    if rng.random() < BLANK:
        return f"{THINK_START}\n"
    lines = _thinking(rng, problem)
    thinking, suffix = "\n".join(lines), f"\n{ANSWER_START}\n{ANSWER}"
    if rng.random() < CUT:
        thinking = thinking[: rng.integers(len(thinking))]
        suffix = f"\n{ANSWER_START}{FINAL_ANSWER} "
    value = [f"{problem.start:02d}", *_VALUE.findall(thinking)][-1]
    if rng.random() < MISREAD:
        value = f"{_other(rng, int(value)):02d}"
    return f"{THINK_START}\n{thinking}{suffix}{value}{TURN_END}"


def _thinking(rng: np.random.Generator, problem: Problem) -> list[str]:
    """Sample the lines of a run: rounds of updates with their sums, and slips at random positions."""
    count = len(problem.updates)
    needed = -(-count // UPDATES_PER_ROUND)
    early = needed > 1 and rng.random() < EARLY_STOP
    rounds = int(rng.integers(1, needed)) if early else needed + min(int(rng.geometric(0.6)) - 1, 3)
    # a slip is possible at each update and at the end of each round
    positions = min(count, rounds * UPDATES_PER_ROUND) + rounds
    slips = set(rng.integers(positions, size=rng.choice(len(SLIPS), p=SLIPS)).tolist())
    lines: list[str] = []
    value, done, position = problem.start, 0, 0
    for round_index in range(rounds):
        if round_index:
            more = (done < count) != (position - 1 in slips and rng.random() < 0.5)
            lines.append(f"{WAIT}, more." if more else f"{WAIT}, all done.")
        for _ in range(min(UPDATES_PER_ROUND, count - done)):
            line, value = _update(rng, problem, done, value, slip=position in slips)
            lines += line
            done, position = done + 1, position + 1
        value = _other(rng, value) if position in slips and rng.random() < 0.5 else value
        lines.append(f"So {value:02d}.")
        position += 1
    return lines


def _update(rng: np.random.Generator, problem: Problem, index: int, value: int, slip: bool) -> tuple[list[str], int]:
    """Return the line of one update of `value` (none if it is skipped), and the value after it."""
    before, update = value, problem.updates[index]
    kind = rng.choice(["result", "result", "sign", "operand", "before", "skip"]) if slip else "none"
    if kind == "skip":
        return [], value
    if kind == "operand":
        update = int(rng.choice([u for u in range(MIN_STEP, MAX_STEP + 1) if u != abs(update)]) * np.sign(update))
    if kind == "before":
        before = _other(rng, value)
    after = (before + (-update if kind == "sign" else update)) % MODULUS
    if kind == "result":
        after = _other(rng, after)
    return [_line(index, before, update, after)], after


def _line(index: int, before: int, update: int, after: int) -> str:
    return f"{chr(ord('a') + index)} {before:02d}{update:+d}={after:02d}"


def _other(rng: np.random.Generator, value: int) -> int:
    """Sample a different value, mostly a near one, as slips are."""
    return (value + int(rng.choice([-10, 10, -1, 1, -2, 2, int(rng.integers(1, MODULUS))]))) % MODULUS
