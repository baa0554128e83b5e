"""Model FLOPs of a training step, and the fraction of the chips' peak that they reach (MFU)."""

from __future__ import annotations

import jax
import numpy as np

from s1_jax.chips import chip_of
from s1_jax.config import ModelConfig


def matmul_parameters(model: ModelConfig) -> int:
    """Count the parameters that every token is multiplied with: all matrices but the embedding, the head once."""
    D, F, H, V = model.hidden_size, model.intermediate_size, model.head_dim, model.vocab_size
    attention = D * H * (2 * model.num_attention_heads + 2 * model.num_key_value_heads)
    return model.num_hidden_layers * (attention + 3 * D * F) + D * V


def step_flops(model: ModelConfig, positions: np.ndarray, segment_ids: np.ndarray) -> float:
    """Count forward and backward FLOPs of packed rows: no recompute, causal attention within documents counted once.

    `positions` and `segment_ids` may have any equal shape; positions restart in each document, so the odd numbers
    2p + 1 of a document of n tokens sum to n squared.
    """
    real = segment_ids > 0
    squares = float(np.sum(2 * positions.astype(np.int64)[real] + 1))
    scores = 6.0 * model.num_hidden_layers * model.num_attention_heads * model.head_dim
    return 6.0 * matmul_parameters(model) * float(real.sum()) + scores * squares


def mfu(flops: float, seconds: float) -> float | None:
    """Return the fraction of all devices' peak that these FLOPs reach; None where the table has no such chip."""
    chip = chip_of(jax.devices()[0].device_kind)
    return None if chip is None else flops / seconds / (chip.peak_flops * jax.device_count())
