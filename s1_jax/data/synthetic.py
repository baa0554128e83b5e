"""The tiny task: a number mod 100 goes through 2 to 12 small updates, and thinking works out one update a line.

    Start: 16. Steps: a-8 b+9 c-4 d-3 e+4. Result mod 100?          thinking:  a 16-8=08
                                                                               ...
                                                                               d 13-3=10
                                                                               So 10.
                                                                               Wait, more.
                                                                               e 10+4=14
                                                                               So 14.

What this demonstrates, and what it does not: the behaviour is put into the text on purpose. The teacher of the
fine-tuning set under-thinks by construction (it sums up after every four updates and mostly stops there, right or
wrong), and the pretraining corpus teaches what follows "Wait" (the next four updates, or the same sum again). A model
trained on it shows the mechanism of budget forcing, learnt and with no rule in the decoder; it does not show that such
behaviour emerges.

Held-out problems are those whose SHA-256 falls into one bucket of ten. No corpus here can generate one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator

import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.data.chat import ANSWER_START, FINAL_ANSWER, THINK_START, TURN_END, Example, encode, prompt_ids

MODULUS = 100
MIN_UPDATES, MAX_UPDATES = 2, 12
MIN_STEP, MAX_STEP = 2, 9
UPDATES_PER_ROUND = 4  # the teacher sums up after so many
MAX_WAITS = 4  # of the teacher
STOP_PROBABILITY = 0.6  # of the teacher, at every sum
HELD_OUT_BUCKETS = 10  # one of them is held out

WAIT = "Wait"
_VALUE = re.compile(r"=(\d\d)")


@dataclasses.dataclass(frozen=True)
class Problem:
    """`start` in 0..99 and the signed updates, each of size 2..9."""

    start: int
    updates: tuple[int, ...]

    @property
    def values(self) -> list[int]:
        """The running value: before the first update, then after each."""
        return [int(v) for v in np.cumsum([self.start, *self.updates]) % MODULUS]

    @property
    def answer(self) -> str:
        """The last value, in two digits."""
        return f"{self.values[-1]:02d}"

    @property
    def question(self) -> str:
        """The problem in words; also its canonical form, as one problem has one wording."""
        steps = " ".join(f"{_letter(i)}{update:+d}" for i, update in enumerate(self.updates))
        return f"Start: {self.start:02d}. Steps: {steps}. Result mod {MODULUS}?"

    @property
    def held_out(self) -> bool:
        """True for the tenth of all problems kept for evaluation, by a hash of the question."""
        digest = hashlib.sha256(self.question.encode()).digest()
        return int.from_bytes(digest[:8], "big") % HELD_OUT_BUCKETS == 0

    @property
    def lines(self) -> list[str]:
        """One line of work per update: `a 16-8=08`."""
        values = self.values
        return [
            f"{_letter(i)} {before:02d}{update:+d}={after:02d}"
            for i, (before, update, after) in enumerate(zip(values, self.updates, values[1:], strict=False))
        ]

    def thinking(self, waits: int) -> str:
        """Thinking that sums up after every round of four updates and goes on `waits` times before it stops."""
        text, done = [], 0
        for round_index in range(waits + 1):
            if round_index:
                text.append(f"{WAIT}, more." if done < len(self.updates) else f"{WAIT}, all done.")
            text += self.lines[done : done + UPDATES_PER_ROUND]
            done = min(done + UPDATES_PER_ROUND, len(self.updates))
            text.append(f"So {self.values[done]:02d}.")
        return "\n".join(text)


def sample_problem(rng: np.random.Generator, held_out: bool = False, longest: int = MAX_UPDATES) -> Problem:
    """A problem on the asked side of the split; lengths from 2 to `longest` are equally frequent."""
    count = int(rng.integers(MIN_UPDATES, longest + 1))
    while True:
        sizes = rng.integers(MIN_STEP, MAX_STEP + 1, count) * rng.choice([-1, 1], count)
        problem = Problem(int(rng.integers(MODULUS)), tuple(int(size) for size in sizes))
        if problem.held_out == held_out:
            return problem


def distinct_problems(rng: np.random.Generator, n: int, held_out: bool) -> list[Problem]:
    """`n` different problems of one side of the split, in the order they were drawn."""
    problems: dict[Problem, None] = {}
    while len(problems) < n:
        problems.setdefault(sample_problem(rng, held_out))
    return list(problems)


def generate_examples(seed: int, n: int) -> list[dict[str, str]]:
    """The fine-tuning set: `n` different training problems, worked by the teacher who under-thinks.

    Its answer is its last sum, so it is wrong wherever it stopped too early. Keys `id`, `question`, `thinking` and
    `answer`.
    """
    rng = np.random.default_rng([seed, 0])
    rows = []
    for index, problem in enumerate(distinct_problems(rng, n, held_out=False)):
        waits = min(int(rng.geometric(STOP_PROBABILITY)) - 1, MAX_WAITS)
        thinking = problem.thinking(waits)
        answer = _current_value(problem, thinking)
        rows.append({"id": f"sft-{seed}-{index}", "question": problem.question, "thinking": thinking, "answer": answer})
    return rows


def generate_problems(seed: int, n: int) -> list[dict[str, str]]:
    """The evaluation set: `n` different held-out problems with right answers. Keys `id`, `problem`, `answer`."""
    problems = distinct_problems(np.random.default_rng([seed, 1]), n, held_out=True)
    return [
        {"id": f"tiny-{seed}-{index}", "problem": problem.question, "answer": problem.answer}
        for index, problem in enumerate(problems)
    ]


def drill(rng: np.random.Generator, tokenizer: PreTrainedTokenizerBase, length: int) -> Example:
    """Exactly `length` tokens of single operations, `57+6=63`; loss on the results."""
    token_ids: list[int] = []
    loss_mask: list[bool] = []
    while len(token_ids) < length:
        before, step = int(rng.integers(MODULUS)), int(rng.integers(MIN_STEP, MAX_STEP + 1)) * int(rng.choice([-1, 1]))
        for text, loss in (
            (f"{before:02d}{step:+d}=", False),
            (f"{(before + step) % MODULUS:02d}", True),
            ("\n", False),
        ):
            ids = encode(tokenizer, text)
            token_ids += ids
            loss_mask += [loss] * len(ids)
    return Example(np.asarray(token_ids[:length], np.int32), np.asarray(loss_mask[:length]))


def plain_documents(
    rng: np.random.Generator, tokenizer: PreTrainedTokenizerBase, longest: int = MAX_UPDATES
) -> Iterator[Example]:
    """Worked problems as running text, without pauses; loss on the solution."""
    while True:
        problem = sample_problem(rng, longest=longest)
        solution = "\n".join([*problem.lines, f"So {problem.answer}.<|endoftext|>"])
        yield _joined(tokenizer, (f"Problem: {problem.question}\nSolution:\n", False), (solution, True))


def chat_documents(
    rng: np.random.Generator, tokenizer: PreTrainedTokenizerBase, longest: int = MAX_UPDATES
) -> Iterator[Example]:
    """Worked problems in s1's chat format, pausing after every round; loss on work and answers.

    Half of them stop by themselves and answer with "Answer:"; the other half are cut at any token of the thinking
    (before the first, inside a line, after a sum) and answer with "Final Answer:" and the last value worked out so far.
    Whether to stop or to go on after a sum is left open: the tokens that decide it carry no loss. What follows a "Wait"
    does.
    """
    while True:
        problem = sample_problem(rng, longest=longest)
        thinking = "\n" + problem.thinking(waits=int(rng.integers(MAX_WAITS + 2))) + "\n"
        thinking_ids = encode(tokenizer, thinking)
        suffix = ANSWER_START + "\nAnswer:"
        if rng.random() < 0.5:
            thinking_ids = thinking_ids[: rng.integers(len(thinking_ids))]
            thinking = tokenizer.decode(thinking_ids)
            suffix = ("" if thinking.endswith("\n") else "\n") + ANSWER_START + FINAL_ANSWER
        answer_ids = encode(tokenizer, f" {_current_value(problem, thinking)}{TURN_END}")
        opening = prompt_ids(tokenizer, problem.question) + encode(tokenizer, THINK_START)
        suffix_ids = encode(tokenizer, suffix)
        wait = encode(tokenizer, WAIT)[0]
        loss_mask = (
            [False] * len(opening)
            + [token != wait for token in thinking_ids]
            + [FINAL_ANSWER not in suffix and index > 0 for index in range(len(suffix_ids))]
            + [True] * len(answer_ids)
        )
        yield Example(np.asarray(opening + thinking_ids + suffix_ids + answer_ids, np.int32), np.asarray(loss_mask))


def _letter(index: int) -> str:
    return chr(ord("a") + index)


def _current_value(problem: Problem, thinking: str) -> str:
    return [f"{problem.start:02d}", *_VALUE.findall(thinking)][-1]


def _joined(tokenizer: PreTrainedTokenizerBase, *spans: tuple[str, bool]) -> Example:
    encoded = [(encode(tokenizer, text), loss) for text, loss in spans]
    token_ids = np.concatenate([np.asarray(ids, np.int32) for ids, _ in encoded])
    return Example(token_ids, np.concatenate([np.full(len(ids), loss) for ids, loss in encoded]))
