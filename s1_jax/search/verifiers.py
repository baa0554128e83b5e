"""The reward models of an evaluation, each loaded when it is first needed."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from s1_jax.checkpoints import hf, hf_reward
from s1_jax.config import EvaluateConfig, SearchConfig, StepConfig
from s1_jax.errors import UserError
from s1_jax.search.layout import RewardLayout
from s1_jax.search.scoring import RewardScorer, check_tokenizers
from s1_jax.search.verifier import Verifier
from s1_jax.sharding import Layout


class Verifiers:
    """Reward models of `config.rewards` for a policy with this tokenizer, in `dtype` on the mesh of `layout`."""

    def __init__(self, config: EvaluateConfig, tokenizer: PreTrainedTokenizerBase, dtype: Any, layout: Layout) -> None:
        self._config, self._tokenizer, self._dtype, self._layout = config, tokenizer, dtype, layout
        self._scorers: dict[str, tuple[RewardScorer, PreTrainedTokenizerBase]] = {}

    @property
    def steps(self) -> StepConfig:
        """Configuration of where the scored steps end."""
        return self._config.steps

    def of(self, kind: str | None, search: SearchConfig) -> Verifier | None:
        """Return the verifier of this kind ("process" or "outcome") for a search, or None if `kind` is None.

        Raises UserError if no such model is configured, if it is of another kind, or if its tokenizer differs from the
        policy's.
        """
        if kind is None:
            return None
        if kind not in self._scorers:
            self._scorers[kind] = self._load(kind)
        scorer, tokenizer = self._scorers[kind]
        separator = self.steps.separator or StepConfig().separator
        assert separator is not None
        layout = RewardLayout(
            tokenizer, scorer.reward, scorer.max_length, search, step_separator=separator, format=self._config.format
        )
        return Verifier(scorer, layout)

    def _load(self, kind: str) -> tuple[RewardScorer, PreTrainedTokenizerBase]:
        rewards = self._config.rewards
        path = getattr(rewards, kind)
        if path is None:
            raise UserError(f"the search needs a {kind} reward model; set --rewards.{kind} to its folder or hub id")
        tokenizer = hf.load_tokenizer(path)
        check_tokenizers(self._tokenizer, tokenizer)
        config, reward, params = hf_reward.load_for_scoring(path, self._config.stored, self._dtype, self._layout)
        if reward.kind != kind:
            scores = "steps" if reward.kind == "process" else "whole runs"
            raise UserError(f"rewards.{kind}: {path} scores {scores}; set it as --rewards.{reward.kind} instead")
        sizes: dict[str, Any] = dict(max_length=rewards.max_length, batch_size=rewards.batch_size, slots=rewards.slots)
        scorer = RewardScorer(config, reward, params, tokenizer, dtype=self._dtype, layout=self._layout, **sizes)
        return scorer, tokenizer
