"""Requests to the engine, each of which asks for one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from s1_jax.config import BudgetConfig, FormatConfig, SamplingConfig
from s1_jax.decoding.core.budget import NO_LIMIT
from s1_jax.records import Record, make


@dataclasses.dataclass(frozen=True)
class Request:
    """One run that the engine is asked to decode.

    The prompt's ids stop before the start marker. Errors call the request by its `name`.
    """

    prompt_token_ids: tuple[int, ...]
    budget: BudgetConfig = BudgetConfig()
    sampling: SamplingConfig = SamplingConfig()
    problem_id: str | int | None = None
    sample: int = 0
    seed: int = 0
    max_answer_tokens: int | None = None  # None: a quarter of max_model_len, at most 1024
    name: str = "prompt"
    thinking_sampling: SamplingConfig | None = None  # settings of thinking alone; None: the same
    reserved_answer_tokens: int | None = None  # answer tokens that thinking leaves room for; None: all
    stop_strings: tuple[str, ...] = ()  # each ends the answer; the record has the tokens up to its last one
    thinking: bool = True  # False: no start marker and no thinking, the answer begins at once
    max_new_tokens: int | None = None  # limit of thinking and answer without forcing; None: see `free_tokens`
    max_completion_tokens: int | None = None  # limit of all tokens after the start marker; thinking leaves room as at
    # the end of the context; None: as many as fit
    given_thinking: tuple[int, ...] = ()  # thinking tokens that are there already and count as thinking

    @property
    def free_tokens(self) -> int | None:
        """Give the number of tokens that a run without forcing may write after the start marker; None: as many as fit.

        It is `max_new_tokens` or else `max_answer_tokens`, where one is given. Where `max_thinking_tokens` bounds the
        thinking, thinking and answer have a limit each, and there is none for both.
        """
        if not self.thinking or self.budget.forcing or self.budget.max_thinking_tokens is not None:
            return None
        limit = self.max_answer_tokens if self.max_new_tokens is None else self.max_new_tokens
        return None if limit is None or limit >= NO_LIMIT else limit

    def asked(
        self, max_answer_tokens: int, max_model_len: int, format: FormatConfig, stop_tokens: Sequence[str]
    ) -> Record:
        """Return the fields of its record that are known before decoding, with what the engine decides."""
        return make.asked(
            problem_id=self.problem_id,
            sample=self.sample,
            seed=self.seed,
            prompt_token_ids=self.prompt_token_ids,
            budget=self.budget,
            sampling=self.sampling,
            max_answer_tokens=max_answer_tokens,
            max_model_len=max_model_len,
            format=format,
            stop_tokens=stop_tokens,
            thinking_sampling=self.thinking_sampling,
            reserved_answer_tokens=self.reserved_answer_tokens,
            stop_strings=self.stop_strings,
            thinking=self.thinking,
            max_new_tokens=self.free_tokens,
        )
