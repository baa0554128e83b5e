"""The reward models of a run, each loaded when it is first asked for."""

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
    """Those of `config.rewards`, for a policy with this tokenizer; products are made in `dtype`, placed by `layout`."""

    def __init__(self, config: EvaluateConfig, tokenizer: PreTrainedTokenizerBase, dtype: Any, layout: Layout) -> None:
        self._config, self._tokenizer, self._dtype, self._layout = config, tokenizer, dtype, layout
        self._scorers: dict[str, tuple[RewardScorer, PreTrainedTokenizerBase]] = {}

    @property
    def steps(self) -> StepConfig:
        """Where steps end that are scored."""
        return self._config.steps

    def of(self, kind: str | None, search: SearchConfig) -> Verifier | None:
        """What scores the runs of a search: a "process" or an "outcome" model, or nothing.

        Raises UserError where there is no such model, it is of another kind, or its tokenizer is another.
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
            raise UserError(f"a search is scored by a {kind} reward model: give --rewards.{kind} its folder or hub id")
        tokenizer = hf.load_tokenizer(path)
        check_tokenizers(self._tokenizer, tokenizer)
        config, reward, params = hf_reward.load_for_scoring(path, self._config.stored, self._dtype, self._layout)
        if reward.kind != kind:
            raise UserError(f"rewards.{kind}: {path} scores {'steps' if reward.kind == 'process' else 'whole runs'}")
        sizes: dict[str, Any] = dict(max_length=rewards.max_length, batch_size=rewards.batch_size, slots=rewards.slots)
        scorer = RewardScorer(config, reward, params, tokenizer, dtype=self._dtype, layout=self._layout, **sizes)
        return scorer, tokenizer
