"""Scores of runs by a reward model, from the text layout to the probability."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import NamedTuple

from s1_jax.search.layout import RewardLayout
from s1_jax.search.scoring import RewardScorer


class Verdict(NamedTuple):
    """Scores of one run by a reward model."""

    scores: tuple[float, ...]  # between 0 and 1, one per step that was read; one in all for an outcome model
    num_tokens: int  # tokens that were read, without the question
    whole: bool  # False if the run was too long and was read in part


class Verifier:
    """Reward model that scores runs, with its scorer and its text layout."""

    def __init__(self, scorer: RewardScorer, layout: RewardLayout) -> None:
        self._scorer, self._layout = scorer, layout
        self.kind = scorer.reward.kind

    def score(self, runs: Sequence[tuple[str, str]], names: Sequence[str] | None = None) -> list[Verdict]:
        """Score pairs of a question and a run's text; error messages use `names`.

        An unbounded score is mapped to a probability with the logistic function: models trained on preferences return a
        logit, and votes are weighted by the probability. Raises UserError as the layout does, and UserError and
        RunError as the scorer does.
        """
        texts = [self._layout.text(question, run) for question, run in runs]
        found = self._scorer.score([text.token_ids for text in texts], [text.scored for text in texts], names)
        if self._scorer.reward.labels == 1:
            found = [[probability(score) for score in scores] for scores in found]
        return [
            Verdict(tuple(scores), len(text.token_ids) - text.prompt_length, text.whole)
            for scores, text in zip(found, texts, strict=True)
        ]


def probability(logit: float) -> float:
    """Return the logistic function of a logit, without overflow."""
    return 1 / (1 + exp(-logit)) if logit >= 0 else exp(logit) / (1 + exp(logit))
