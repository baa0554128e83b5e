"""What is asked of the engine: one row to decode."""

from __future__ import annotations

import dataclasses

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
