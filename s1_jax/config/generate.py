"""Options of `python -m s1_jax.generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from s1_jax.config.budget import S1, BudgetConfig, FormatConfig, SamplingConfig
from s1_jax.config.model import StoredConfig
from s1_jax.config.options import Count, Options, Place, Seed, Whole
from s1_jax.config.types import Drafted, Rows


@dataclass(frozen=True)
class GenerateConfig(Options):
    """Options of `python -m s1_jax.generate`."""

    model: Place  # folder or hub id in Hugging Face layout
    input: Place | None = None  # prompts, one JSON object a line
    output: Place | None = None  # records, one JSON object a line; an unfinished one is gone on with
    prompt: str | None = None  # one user message instead of files: streams to the terminal
    budget: BudgetConfig = BudgetConfig()
    sampling: SamplingConfig = SamplingConfig()
    thinking: bool = True  # off: no start marker and no budget, the model answers at once
    # none: a quarter of max_model_len, at most 1024; of a run without forcing it bounds thinking and answer together
    max_answer_tokens: Whole | None = None
    max_model_len: Count | None = None  # tokens of prompt, thinking and answer together; none: the model's
    format: FormatConfig = S1
    batch_size: Rows = 8
    # looked up in prompt and thinking, and checked by one pass of the model; no token changes
    draft_tokens: Drafted = 0
    seed: Seed = 0
    dtype: Literal["float32", "bfloat16"] = "float32"  # of products
    stored: StoredConfig = StoredConfig()
