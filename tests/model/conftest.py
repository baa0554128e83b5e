"""Running the two models side by side."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from s1_jax.model import transformer


def ours(model, token_ids, positions=None, segment_ids=None, **options) -> np.ndarray:
    """Logits [B, T, V] of s1_jax; positions count from 0 and the row is one document unless given."""
    token_ids = jnp.asarray(token_ids)
    positions = jnp.broadcast_to(jnp.arange(token_ids.shape[1]), token_ids.shape) if positions is None else positions
    segment_ids = jnp.ones_like(token_ids) if segment_ids is None else segment_ids
    return np.asarray(
        _logits(model.config, model.params, token_ids, jnp.asarray(positions), jnp.asarray(segment_ids), **options)
    )


@partial(jax.jit, static_argnums=0, static_argnames=("compute_dtype", "remat"))
def _logits(config, params, token_ids, positions, segment_ids, **options):
    return transformer.logits(
        config, params, transformer.hidden_states(config, params, token_ids, positions, segment_ids, **options)
    )


def theirs(model, token_ids, attention_mask=None, position_ids=None) -> np.ndarray:
    """Logits [B, T, V] of transformers."""
    given = {"input_ids": token_ids, "attention_mask": attention_mask, "position_ids": position_ids}
    with torch.no_grad():
        out = model.torch_model(**{k: torch.tensor(np.asarray(v)) for k, v in given.items() if v is not None})
    return out.logits.numpy()


@pytest.fixture(scope="session")
def run_ours():
    return ours


@pytest.fixture(scope="session")
def run_theirs():
    return theirs
