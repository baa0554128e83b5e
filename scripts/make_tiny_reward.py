"""Makes the tiny reward models that ship with the package: the tiny base model with a head, trained on labelled runs.

    python scripts/make_tiny_reward.py --target s1_jax/assets

Hardware: two CPU cores, about 4 minutes on busy ones. Seeded: the same seed gives the same bytes on the same machine.
Writes tiny_reward_outcome, which learns from the tiny base model whether a run's answer is right, and
tiny_reward_process, which goes on from there and learns whether each step is. The runs are those of
`s1_jax/data/synthetic_runs.py`: no model writes them, and none is of an evaluation problem.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from make_tiny_base import make_optimizer
from transformers import PreTrainedTokenizerBase

from s1_jax.checkpoints import hf, hf_reward
from s1_jax.config import ModelConfig, SearchConfig
from s1_jax.data.synthetic import sample_problem
from s1_jax.data.synthetic_runs import STEP_SEPARATOR, is_right, right_steps, sample_run
from s1_jax.model import reward as reward_model
from s1_jax.model.reward import REWARD_MODELS, RewardConfig
from s1_jax.search.layout import RewardLayout
from s1_jax.search.scoring import separator_ids

TINY_BASE = Path(hf.__file__).parents[1] / "assets" / "tiny_base"
# a token of the tiny tokenizer that stands in no text of the task
SEPARATOR = "~"
REWARDS = {
    "outcome": REWARD_MODELS["Qwen2ForSequenceClassification"],
    "process": dataclasses.replace(REWARD_MODELS["Qwen2ForTokenClassification"], separator=SEPARATOR),
}
ROWS = 16  # of a batch
SORTED = 8  # batches made at a time, so that rows of like length stand together
LENGTHS = 128  # rows are padded to a multiple
MUON_LR, ADAM_LR = 0.01, 1.5e-3
NO_LABEL = -1


class Row(NamedTuple):
    """A run as a reward model reads it, and what it should say."""

    token_ids: list[int]
    labels: list[int]  # behind each token: 1 right, 0 wrong, NO_LABEL


class RowMaker:
    """Makes rows for one reward model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: ModelConfig, reward: RewardConfig) -> None:
        self._tokenizer = tokenizer
        self._by_steps = reward.kind == "process"
        if self._by_steps:
            separator_ids(tokenizer, config, reward)  # raises on one that is unfit
        length = config.max_position_embeddings
        self._layout = RewardLayout(tokenizer, reward, length, SearchConfig(), step_separator=STEP_SEPARATOR)

    def row(self, rng: np.random.Generator) -> Row:
        """A run of a training problem."""
        problem = sample_problem(rng)
        run = sample_run(rng, problem)
        text = self._layout.text(problem.question, run)
        right = right_steps(problem, self._layout.steps(run)) if self._by_steps else [is_right(problem, run)]
        labels = [NO_LABEL] * len(text.token_ids)
        for at, is_so in zip(text.scored, right, strict=False):
            labels[at] = int(is_so)
        return Row(text.token_ids, labels)


def stack(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """token_ids and labels [B, T], lengths [B]."""
    T = -(-max(len(row.token_ids) for row in rows) // LENGTHS) * LENGTHS

    def padded(lists: Iterable[Sequence[int]], fill: int) -> np.ndarray:
        return np.stack([np.pad(np.array(ids, np.int32), (0, T - len(ids)), constant_values=fill) for ids in lists])

    return {
        "token_ids": padded((row.token_ids for row in rows), 0),
        "labels": padded((row.labels for row in rows), NO_LABEL),
        "lengths": np.array([len(row.token_ids) for row in rows], np.int32),
    }


def batches(make_row: Callable[[], Row], steps: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of ROWS rows of like length."""
    for _ in range(0, steps, SORTED):
        rows = sorted((make_row() for _ in range(SORTED * ROWS)), key=lambda row: len(row.token_ids))
        for at in range(0, len(rows), ROWS):
            yield stack(rows[at : at + ROWS])


def loss_fn(config: ModelConfig, params: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Mean binary cross-entropy over the labels, and the share of them that is told right."""
    places = jnp.broadcast_to(jnp.arange(batch["token_ids"].shape[1]), batch["token_ids"].shape)
    logits = reward_model.logits_at(config, params, batch["token_ids"], batch["lengths"], places)
    # of wrong and right, how much more right is
    logit = logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]
    right, labelled = batch["labels"] == 1, batch["labels"] != NO_LABEL
    losses = optax.sigmoid_binary_cross_entropy(logit, right)
    told = (logit > 0) == right
    total = jnp.sum(labelled)
    return jnp.sum(losses * labelled) / total, jnp.sum(told * labelled) / total


def train(config: ModelConfig, params: Any, make_row: Callable[[], Row], steps: int, name: str) -> Any:
    """The parameters after so many steps on rows."""
    optimizer = make_optimizer(steps, MUON_LR, ADAM_LR)

    @jax.jit
    def train_step(params: Any, state: Any, batch: dict[str, jax.Array]) -> tuple[Any, Any, Any]:
        found, grads = jax.value_and_grad(partial(loss_fn, config), has_aux=True)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, found

    state = optimizer.init(params)
    recent: list[Any] = []
    start = time.monotonic()
    for step, batch in enumerate(batches(make_row, steps), start=1):
        params, state, found = train_step(params, state, batch)
        recent.append(found)
        if step % 20 == 0:
            loss, told = np.mean(jax.device_get(recent), axis=0)
            left = (time.monotonic() - start) / step * (steps - step)
            line = f"{name} step {step:5d}/{steps}  loss {loss:.4f}  told right {told:.3f}"
            print(f"{line}  {left / 60:.1f} min left", flush=True)
            recent = []
    return params


def main() -> None:
    """The outcome model from the base, the process model from the outcome model's backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True, help="folder to write both into, in Hugging Face layout")
    parser.add_argument("--steps", type=int, nargs=2, default=(200, 160), help="of the outcome and the process model")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    tokenizer = hf.load_tokenizer(TINY_BASE)
    config, body = hf.load_params(TINY_BASE)
    rng = np.random.default_rng([args.seed, 2])
    for (kind, reward), steps in zip(REWARDS.items(), args.steps, strict=True):
        params = body | {"score": reward_model.init_score(config, reward, jax.random.key(args.seed))}
        params = train(config, params, partial(RowMaker(tokenizer, config, reward).row, rng), steps, kind)
        target = args.target / f"tiny_reward_{kind}"
        hf_reward.save_params(target, config, reward, params, dtype=jnp.bfloat16, tokenizer_from=TINY_BASE)
        print(f"wrote {target}", flush=True)
        body = reward_model.backbone(config, params)[1]


if __name__ == "__main__":
    main()
