"""A reward model with the texts it wants: what it says of runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import NamedTuple

from s1_jax.search.layout import RewardLayout
from s1_jax.search.scoring import RewardScorer


class Verdict(NamedTuple):
    """What a reward model says of one run."""

    scores: tuple[float, ...]  # between 0 and 1, of the steps it read; of an outcome model one
    num_tokens: int  # it read, the question aside
    whole: bool  # else the run was too long, and was read in part


class Verifier:
    """Scores runs with a scorer, laid out by `layout`."""

    def __init__(self, scorer: RewardScorer, layout: RewardLayout) -> None:
        self._scorer, self._layout = scorer, layout
        self.kind = scorer.reward.kind

    def score(self, runs: Sequence[tuple[str, str]], names: Sequence[str] | None = None) -> list[Verdict]:
        """Of pairs of a question and a run's text, all at once; `names` is how errors call each.

        Raises UserError as the layout does, and both errors as the scorer does.

        A score that may be any number becomes a probability: where models are trained on preferences it is the logit of
        one, and votes are weighed by it.
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
    """The logistic function, which overflows nowhere."""
    return 1 / (1 + exp(-logit)) if logit >= 0 else exp(logit) / (1 + exp(logit))
