"""What is asked of the engine: one row to decode."""

from __future__ import annotations

import dataclasses
from typing import Any

from s1_jax.config import BudgetConfig, SamplingConfig
from s1_jax.decoding.core.budget import NO_LIMIT

# fields of a request that its record has only where they are otherwise
USUAL: dict[str, Any] = {
    "thinking_sampling": None,
    "reserved_answer_tokens": None,
    "stop_strings": (),
    "thinking": True,
    "max_new_tokens": None,
}


@dataclasses.dataclass(frozen=True)
class Request:
    """One row to decode. The prompt's ids stop before the start marker; `name` is how errors call the row."""

    prompt_token_ids: tuple[int, ...]
    budget: BudgetConfig = BudgetConfig()
    sampling: SamplingConfig = SamplingConfig()
    problem_id: str | int | None = None
    sample: int = 0
    seed: int = 0
    max_answer_tokens: int | None = None  # none: a quarter of max_model_len, at most 1024
    name: str = "prompt"
    thinking_sampling: SamplingConfig | None = None  # of thinking alone; none: the same
    reserved_answer_tokens: int | None = None  # so many of them thinking leaves room for; none: all
    stop_strings: tuple[str, ...] = ()  # each ends the answer, of which a record has the tokens up to its last
    thinking: bool = True  # False: no start marker and no thinking, the answer begins at once
    max_new_tokens: int | None = None  # without forcing, of thinking and answer together; none: see `free_tokens`

    @property
    def free_tokens(self) -> int | None:
        """Number of tokens that a run without forcing may write after the start marker; None: as many as fit.

        It is `max_new_tokens`, else `max_answer_tokens` as far as it is given. Where `max_thinking_tokens` bounds the
        thinking, thinking and answer have a limit each, and there is none for both.
        """
        if not self.thinking or self.budget.forcing or self.budget.max_thinking_tokens is not None:
            return None
        limit = self.max_answer_tokens if self.max_new_tokens is None else self.max_new_tokens
        return None if limit is None or limit >= NO_LIMIT else limit

    @property
    def unusual(self) -> dict[str, Any]:
        """Fields that a record has only where they are not as usual, so that earlier versions' stay the same."""
        values = dataclasses.asdict(self) | {"max_new_tokens": self.free_tokens}
        return {name: values[name] for name, value in USUAL.items() if values[name] != value}
