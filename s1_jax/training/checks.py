"""Checks of what must fit together before a run starts or is planned."""

from __future__ import annotations

from s1_jax.config import ModelConfig, TrainConfig
from s1_jax.errors import UserError
from s1_jax.sharding import Layout


def check_sizes(config: TrainConfig, model: ModelConfig, tokens: int, layout: Layout) -> None:
    """Raise UserError where batch, lengths, tokenizer (of `tokens` entries), model and mesh do not fit together."""
    rows, multiple = config.data.micro_batch_rows, layout.size("batch")
    if rows % multiple:
        raise UserError(f"data.micro_batch_rows {rows} must be a multiple of {multiple}, the mesh's data x fsdp")
    pieces = layout.size("residual_length")
    if odd := [length for length in config.data.capacities if length % pieces]:
        raise UserError(f"rows of {odd[0]} tokens must be a multiple of {pieces}, the mesh's context x tensor")
    length, longest = config.data.max_length, model.max_position_embeddings
    if length > longest:
        raise UserError(f"data.max_length {length} is above the model's max_position_embeddings {longest}")
    if tokens > model.vocab_size:
        raise UserError(f"the tokenizer has {tokens} entries, the model's vocabulary only {model.vocab_size}")
