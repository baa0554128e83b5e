"""Options of `python -m s1_jax.generate`."""

from __future__ import annotations

from dataclasses import dataclass

from s1_jax.config.budget import S1, BudgetConfig, FormatConfig, SamplingConfig
from s1_jax.config.model import DecodeModelSource, MeshConfig, StoredConfig
from s1_jax.config.options import Count, Options, Place, Seed, Whole
from s1_jax.config.types import Drafted, Rows


@dataclass(frozen=True)
class GenerateConfig(Options):
    """Options of `python -m s1_jax.generate`."""

    input: Place | None = None
    """File of prompts, one JSON object a line; needs --output."""
    output: Place | None = None
    """File of records to write, one JSON object a line. If it is not finished, the same command resumes it."""
    prompt: str | None = None
    """One user message, in place of --input and --output; its answer streams to the terminal."""
    model: DecodeModelSource = DecodeModelSource()
    budget: BudgetConfig = BudgetConfig()
    sampling: SamplingConfig = SamplingConfig()
    thinking: bool = True
    """Append the start marker of thinking. Without thinking there is no budget, and the model answers at once."""
    max_answer_tokens: Whole | None = None
    """Maximum number of answer tokens; None is a quarter of max_model_len, at most 1024. Without forcing it limits
    thinking and answer together, and None is no limit."""
    max_model_len: Count | None = None
    """Maximum number of tokens of prompt, thinking and answer together; None is the model's context."""
    batch_size: Rows = 8
    """Number of prompts decoded at a time, rounded up to a multiple of the devices that share the batch."""
    draft_tokens: Drafted = 0
    """Draft this many tokens per step by prompt lookup and verify them in one forward pass; 0 turns it off. The output
    is the same, except where two tokens tie within rounding."""
    seed: Seed = 0
    """Sampling seed; greedy decoding (temperature 0) does not use it."""
    format: FormatConfig = S1
    stored: StoredConfig = StoredConfig()
    mesh: MeshConfig = MeshConfig()
