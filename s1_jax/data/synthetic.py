"""The tiny task applies 2 to 12 small updates to a number mod 100, and thinking computes one update per line.

    Start: 16. Steps: a-8 b+9 c-4 d-3 e+4. Result mod 100?          thinking:  a 16-8=08
                                                                               ...
                                                                               d 13-3=10
                                                                               So 10.
                                                                               Wait, more.
                                                                               e 10+4=14
                                                                               So 14.

The behavior is built into the texts on purpose. The teacher of the fine-tuning set under-thinks by construction: it
sums up after every four updates and mostly stops there, right or wrong. The pretraining corpus teaches what follows
"Wait": the next four updates, or the same sum again. A model trained on it shows the mechanism of budget forcing,
learned and without a rule in the decoder; it does not show that such behavior emerges.

Problems whose SHA-256 falls into one bucket of ten are held out. No corpus here can generate one of them.
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
UPDATES_PER_ROUND = 4  # updates before the teacher sums up
MAX_WAITS = 4  # most waits of the teacher
STOP_PROBABILITY = 0.6  # of the teacher, after every sum
HELD_OUT_BUCKETS = 10  # one of them is held out

WAIT = "Wait"
_VALUE = re.compile(r"=(\d\d)")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem: `start` in 0..99 and the signed updates, each of size 2..9."""

    start: int
    updates: tuple[int, ...]

    @property
    def values(self) -> list[int]:
        """Values before the first update and after each update."""
        return [int(v) for v in np.cumsum([self.start, *self.updates]) % MODULUS]

    @property
    def answer(self) -> str:
        """The last value, written with two digits."""
        return f"{self.values[-1]:02d}"

    @property
    def question(self) -> str:
        """The problem in words, which is also its canonical form."""
        steps = " ".join(f"{_letter(i)}{update:+d}" for i, update in enumerate(self.updates))
        return f"Start: {self.start:02d}. Steps: {steps}. Result mod {MODULUS}?"

    @property
    def held_out(self) -> bool:
        """Whether the problem is in the tenth kept for evaluation, by a hash of the question."""
        digest = hashlib.sha256(self.question.encode()).digest()
        return int.from_bytes(digest[:8], "big") % HELD_OUT_BUCKETS == 0

    @property
    def lines(self) -> list[str]:
        """One line of work per update, such as `a 16-8=08`."""
        values = self.values
        return [
            f"{_letter(i)} {before:02d}{update:+d}={after:02d}"
            for i, (before, update, after) in enumerate(zip(values, self.updates, values[1:], strict=False))
        ]

    def thinking(self, waits: int) -> str:
        """Write thinking that sums up after every round of four updates and continues `waits` times before it stops."""
        text, done = [], 0
        for round_index in range(waits + 1):
            if round_index:
                text.append(f"{WAIT}, more." if done < len(self.updates) else f"{WAIT}, all done.")
            text += self.lines[done : done + UPDATES_PER_ROUND]
            done = min(done + UPDATES_PER_ROUND, len(self.updates))
            text.append(f"So {self.values[done]:02d}.")
        return "\n".join(text)


def sample_problem(rng: np.random.Generator, held_out: bool = False, longest: int = MAX_UPDATES) -> Problem:
    """Sample a training or a held-out problem; lengths from 2 to `longest` are equally frequent."""
    count = int(rng.integers(MIN_UPDATES, longest + 1))
    while True:
        sizes = rng.integers(MIN_STEP, MAX_STEP + 1, count) * rng.choice([-1, 1], count)
        problem = Problem(int(rng.integers(MODULUS)), tuple(int(size) for size in sizes))
        if problem.held_out == held_out:
            return problem


def distinct_problems(rng: np.random.Generator, n: int, held_out: bool) -> list[Problem]:
    """Sample `n` different training or held-out problems, in the order in which they were sampled."""
    problems: dict[Problem, None] = {}
    while len(problems) < n:
        problems.setdefault(sample_problem(rng, held_out))
    return list(problems)


def generate_examples(seed: int, n: int) -> list[dict[str, str]]:
    """Generate the fine-tuning set: `n` different training problems, solved by the teacher who under-thinks.

    The teacher's answer is its last sum, so it is wrong if it stopped too early. The keys are `id`, `question`,
    `thinking` and `answer`.
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
    """Generate the evaluation set: `n` different held-out problems with keys `id`, `problem` and `answer`."""
    problems = distinct_problems(np.random.default_rng([seed, 1]), n, held_out=True)
    return [
        {"id": f"tiny-{seed}-{index}", "problem": problem.question, "answer": problem.answer}
        for index, problem in enumerate(problems)
    ]


def drill(rng: np.random.Generator, tokenizer: PreTrainedTokenizerBase, length: int) -> Example:
    """Generate exactly `length` tokens of single operations, such as `57+6=63`, with loss on the results."""
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
    """Generate solved problems as running text without sums between, with loss on the solution."""
    while True:
        problem = sample_problem(rng, longest=longest)
        solution = "\n".join([*problem.lines, f"So {problem.answer}.<|endoftext|>"])
        yield _joined(tokenizer, (f"Problem: {problem.question}\nSolution:\n", False), (solution, True))


def chat_documents(
    rng: np.random.Generator, tokenizer: PreTrainedTokenizerBase, longest: int = MAX_UPDATES
) -> Iterator[Example]:
    """Generate solved problems in s1's chat format, with a sum after every round and loss on work and answers.

    Half of them stop by themselves and answer with "Answer:". The other half are cut at any token of the thinking
    (before the first, inside a line, after a sum) and answer with "Final Answer:" and the last value computed so far.
    The tokens that decide whether to stop or to continue after a sum carry no loss, so that this stays open; those
    after a "Wait" do carry loss.
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
