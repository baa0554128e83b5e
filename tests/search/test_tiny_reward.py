"""The tiny reward models that ship: they fit the tiny base model, and put a right run above the same run cut short.

Wrong sums they do not see (their README.md), so none is asked of them.
"""

from pathlib import Path

import jax.numpy as jnp
import pytest

import s1_jax
from s1_jax.checkpoints import hf, hf_reward
from s1_jax.config import SearchConfig, StoredConfig
from s1_jax.data.chat import ANSWER_START, THINK_START, TURN_END
from s1_jax.data.synthetic import UPDATES_PER_ROUND, Problem
from s1_jax.data.synthetic_runs import STEP_SEPARATOR
from s1_jax.search.layout import RewardLayout
from s1_jax.search.scoring import RewardScorer, check_tokenizers
from s1_jax.search.verifier import Verifier

ASSETS = Path(s1_jax.__file__).parent / "assets"
LARGEST_REWARD = 3 * 2**19  # bytes: half a million parameters in bfloat16, and the tokenizer
KINDS = ("outcome", "process")
# held-out problems
PROBLEMS = [
    Problem(30, (-9, -2, -5, 8, -7, 8, -2)),
    Problem(2, (-4, 4, 2, 8, -3, 5, -2, -2, 8, 2, 5, 5)),
    Problem(40, (-9, -5, 2, 9, 6, 2)),
    Problem(35, (4, -2, 8, 4, 3, 2, -3, -2, 5, 4, -5)),
    Problem(7, (5, -6, -7, -5, 9, 8, 2)),
]


@pytest.fixture(scope="module")
def verifiers():
    return {kind: verifier(kind) for kind in KINDS}


def verifier(kind):
    folder = ASSETS / f"tiny_reward_{kind}"
    stored = StoredConfig().resolved("float32")
    config, reward, params = hf_reward.load_for_scoring(folder, stored, jnp.float32)
    tokenizer = hf.load_tokenizer(folder)
    check_tokenizers(hf.load_tokenizer(ASSETS / "tiny_base"), tokenizer)
    layout = RewardLayout(
        tokenizer, reward, config.max_position_embeddings, SearchConfig(), step_separator=STEP_SEPARATOR
    )
    return Verifier(RewardScorer(config, reward, params, tokenizer), layout)


def run_text(thinking, answer):
    return f"{THINK_START}\n{thinking}\n{ANSWER_START}\nAnswer: {answer}{TURN_END}"


def right_run(problem):
    """Rounds until all is worked out."""
    rounds = -(-len(problem.updates) // UPDATES_PER_ROUND)
    return problem.question, run_text(problem.thinking(waits=rounds - 1), problem.answer)


def early_run(problem):
    """The same, stopped after its first round."""
    value = f"{problem.values[UPDATES_PER_ROUND]:02d}"
    return problem.question, run_text(problem.thinking(waits=0), value)


def skipping_run(problem):
    """All lines but the second, and no pauses."""
    first, _, *later = problem.updates
    shorter = Problem(problem.start, (first, *later))
    lines = [shorter.lines[0], *(f"{chr(ord(line[0]) + 1)}{line[1:]}" for line in shorter.lines[1:])]
    return problem.question, run_text("\n".join([*lines, f"So {shorter.answer}."]), shorter.answer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_run_is_above_the_same_run_stopped_too_early(kind, verifiers):
    assert verifiers[kind].kind == kind
    for problem in PROBLEMS:
        assert problem.held_out
        right, early = (v.scores[-1] for v in verifiers[kind].score([right_run(problem), early_run(problem)]))
        assert early < 0.5 < right


def test_an_outcome_model_puts_a_right_run_above_one_without_a_line(verifiers):
    for problem in PROBLEMS:
        right, skipping = (
            v.scores[-1] for v in verifiers["outcome"].score([right_run(problem), skipping_run(problem)])
        )
        assert skipping < right


def test_a_process_model_has_nothing_against_a_run_before_its_early_answer(verifiers):
    for verdict in verifiers["process"].score([early_run(problem) for problem in PROBLEMS]):
        *thinking, answer = verdict.scores
        assert len(thinking) == UPDATES_PER_ROUND + 1
        assert min(thinking) > 0.5 > answer


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_small_enough_to_ship(kind):
    assert sum(file.stat().st_size for file in (ASSETS / f"tiny_reward_{kind}").iterdir()) < LARGEST_REWARD
