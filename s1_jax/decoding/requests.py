"""What is asked of the engine: one row to decode."""

from __future__ import annotations

import dataclasses
from typing import Any

from s1_jax.config import BudgetConfig, SamplingConfig


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

    @property
    def unusual(self) -> dict[str, Any]:
        """Fields that a record has only where they are not as usual, so that earlier versions' stay the same."""
        values = dataclasses.asdict(self)
        usual = {"thinking_sampling": None, "reserved_answer_tokens": None, "stop_strings": (), "thinking": True}
        return {name: values[name] for name, value in usual.items() if values[name] != value}
