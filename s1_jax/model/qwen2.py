"""Qwen2.5 dense models (0.5B to 72B) in Flax NNX, used as plain pytrees.

Parameters travel as a nested dict named as in Hugging Face; `layers.*` are stacked on a leading [L] and scanned. A
kernel is [in, out], the transpose of Hugging Face's `weight`. Letters: B batch, T length, L layers, D hidden_size,
F intermediate_size, N query heads, K kv heads, H head_dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from s1_jax.config import ModelConfig, UserError
from s1_jax.model.attention import apply_rope, attend, causal_segments, rope_angles
from s1_jax.model.kv_cache import KVCache, write
from s1_jax.sharding import constrain

Params = dict[str, Any]

PARAM_AXES: Params = {
    "embed_tokens": {"weight": ("vocab", "embed")},
    "layers": {
        "input_layernorm": {"weight": ("layers", "norm")},
        "self_attn": {
            "q_proj": {"kernel": ("layers", "embed", "heads"), "bias": ("layers", "heads")},
            "k_proj": {"kernel": ("layers", "embed", "kv_heads"), "bias": ("layers", "kv_heads")},
            "v_proj": {"kernel": ("layers", "embed", "kv_heads"), "bias": ("layers", "kv_heads")},
            "o_proj": {"kernel": ("layers", "heads", "embed")},
        },
        "post_attention_layernorm": {"weight": ("layers", "norm")},
        "mlp": {
            "gate_proj": {"kernel": ("layers", "embed", "mlp")},
            "up_proj": {"kernel": ("layers", "embed", "mlp")},
            "down_proj": {"kernel": ("layers", "mlp", "embed")},
        },
    },
    "norm": {"weight": ("norm",)},
    "lm_head": {"kernel": ("embed", "vocab")},
}

REMAT_POLICIES: dict[str, Callable | None] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "all_dots": jax.checkpoint_policies.dots_saveable,
    "none": jax.checkpoint_policies.everything_saveable,
}


class Linear(nnx.Module):
    """x [..., in] -> [..., out]; kernel [in, out]."""

    def __init__(
        self, config: ModelConfig, key: jax.Array, size_in: int, size_out: int, dtype: jnp.dtype, bias: bool = False
    ):
        self.kernel = nnx.Param(config.initializer_range * jax.random.normal(key, (size_in, size_out), dtype))
        self.bias = nnx.Param(jnp.zeros((size_out,), dtype)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        # Two-dimensional on purpose: the backward pass of a 3-D product costs XLA on CPU an extra transpose.
        y = (x.reshape(-1, x.shape[-1]) @ self.kernel[...].astype(x.dtype)).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class RMSNorm(nnx.Module):
    """x / rms(x) * weight over the last axis, the mean of squares in float32."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype):
        self.eps = config.rms_norm_eps
        self.weight = nnx.Param(jnp.ones((config.hidden_size,), dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return self.weight[...].astype(x.dtype) * wide.astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query self-attention with biased Q, K and V."""

    def __init__(self, config: ModelConfig, key: jax.Array, dtype: jnp.dtype):
        D, H, N, K = config.hidden_size, config.head_dim, config.num_attention_heads, config.num_key_value_heads
        keys = jax.random.split(key, 4)
        self.head_dim = H
        self.q_proj = Linear(config, keys[0], D, N * H, dtype, bias=True)
        self.k_proj = Linear(config, keys[1], D, K * H, dtype, bias=True)
        self.v_proj = Linear(config, keys[2], D, K * H, dtype, bias=True)
        self.o_proj = Linear(config, keys[3], N * H, D, dtype)

    def project(self, x: jax.Array, cos: jax.Array, sin: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x [B, T, D] -> rotated queries [B, T, N, H], rotated keys and values [B, T, K, H]."""
        B, T, _ = x.shape
        q, k, v = (proj(x).reshape(B, T, -1, self.head_dim) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q = constrain(q, "batch", "length", "act_heads", "head_dim")
        k, v = (constrain(y, "batch", "length", "act_kv_heads", "head_dim") for y in (k, v))
        return apply_rope(q, cos, sin), apply_rope(k, cos, sin), v


class MLP(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, key: jax.Array, dtype: jnp.dtype):
        D, F = config.hidden_size, config.intermediate_size
        keys = jax.random.split(key, 3)
        self.gate_proj = Linear(config, keys[0], D, F, dtype)
        self.up_proj = Linear(config, keys[1], D, F, dtype)
        self.down_proj = Linear(config, keys[2], F, D, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = constrain(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x), "batch", "length", "act_mlp")
        return self.down_proj(inner)


class DecoderLayer(nnx.Module):
    """Pre-norm attention and MLP, each with a residual."""

    def __init__(self, config: ModelConfig, key: jax.Array, dtype: jnp.dtype):
        attention_key, mlp_key = jax.random.split(key)
        self.input_layernorm = RMSNorm(config, dtype)
        self.self_attn = Attention(config, attention_key, dtype)
        self.post_attention_layernorm = RMSNorm(config, dtype)
        self.mlp = MLP(config, mlp_key, dtype)

    def __call__(
        self, x: jax.Array, cos: jax.Array, sin: jax.Array, mix: Callable[..., tuple[jax.Array, Any]]
    ) -> tuple[jax.Array, Any]:
        """x [B, T, D] -> [B, T, D], and what `mix` keeps.

        `mix(q, k, v)` -> ([B, T, N * H], kept) is the attention over tokens.
        """
        mixed, kept = mix(*self.self_attn.project(self.input_layernorm(x), cos, sin))
        x = constrain(x + self.self_attn.o_proj(mixed), "batch", "length", "act_embed")
        x = x + self.mlp(self.post_attention_layernorm(x))
        return constrain(x, "batch", "length", "act_embed"), kept


class Embedding(nnx.Module):
    """Rows of a [V, D] table."""

    def __init__(self, config: ModelConfig, key: jax.Array, dtype: jnp.dtype):
        shape = (config.vocab_size, config.hidden_size)
        self.weight = nnx.Param(config.initializer_range * jax.random.normal(key, shape, dtype))


class Qwen2(nnx.Module):
    """The whole model; `layers` is one DecoderLayer whose every parameter has a leading [L]."""

    def __init__(self, config: ModelConfig, key: jax.Array, dtype: jnp.dtype):
        embed_key, layers_key, head_key = jax.random.split(key, 3)
        layer_keys = jax.random.split(layers_key, config.num_hidden_layers)
        self.embed_tokens = Embedding(config, embed_key, dtype)
        self.layers = jax.vmap(lambda layer_key: DecoderLayer(config, layer_key, dtype))(layer_keys)
        self.norm = RMSNorm(config, dtype)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else Linear(config, head_key, config.hidden_size, config.vocab_size, dtype)
        )

    def embed(self, token_ids: jax.Array, compute_dtype: jnp.dtype) -> jax.Array:
        """token_ids [B, T] -> [B, T, D]."""
        x = jnp.take(self.embed_tokens.weight[...].astype(compute_dtype), token_ids, axis=0)
        return constrain(x, "batch", "length", "act_embed")

    def logits(self, hidden: jax.Array) -> jax.Array:
        """hidden [..., D] -> [..., V] float32."""
        if self.lm_head is None:
            kernel = self.embed_tokens.weight[...].astype(hidden.dtype).T
        else:
            kernel = self.lm_head.kernel[...].astype(hidden.dtype)
        return jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32)


def init_params(config: ModelConfig, key: jax.Array, dtype: jnp.dtype = jnp.float32) -> Params:
    """Random parameters, normal with `initializer_range` as in Hugging Face; biases 0, norms 1."""
    return nnx.to_pure_dict(nnx.state(Qwen2(config, key, dtype)))


def abstract_params(config: ModelConfig, dtype: jnp.dtype = jnp.float32) -> Params:
    """The tree of `init_params` as jax.ShapeDtypeStruct, without making an array."""
    return jax.eval_shape(partial(init_params, config, dtype=dtype), jax.random.key(0))


def param_axes(config: ModelConfig) -> Params:
    """Logical axes of every parameter, in the tree of `init_params`."""
    return {name: axes for name, axes in PARAM_AXES.items() if name != "lm_head" or not config.tie_word_embeddings}


@lru_cache
def _graph(config: ModelConfig) -> nnx.GraphDef:
    return nnx.graphdef(jax.eval_shape(partial(Qwen2, config, dtype=jnp.float32), jax.random.key(0)))


def bind(config: ModelConfig, params: Params) -> Qwen2:
    """The NNX module over these parameters."""
    return nnx.merge(_graph(config), nnx.State(params))


def hidden_states(
    config: ModelConfig,
    params: Params,
    token_ids: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array,
    *,
    compute_dtype: jnp.dtype = jnp.float32,
    remat: str = "none",
) -> jax.Array:
    """Final hidden states [B, T, D] of packed rows.

    token_ids, positions, segment_ids are [B, T] int32; a token attends within its own segment; segment 0 is padding.
    `remat` names what the backward pass keeps (REMAT_POLICIES). Raises UserError on another name.
    """
    if remat not in REMAT_POLICIES:
        raise UserError(f"unknown remat policy {remat!r}; known: {', '.join(REMAT_POLICIES)}")
    model = bind(config, params)
    cos, sin = rope_angles(config, positions)
    mask = causal_segments(segment_ids)

    def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        return attend(q, k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), mask), None

    def step(x: jax.Array, layer: DecoderLayer) -> tuple[jax.Array, None]:
        return layer(x, cos, sin, mix)

    if remat != "none":
        step = jax.checkpoint(step, policy=REMAT_POLICIES[remat], prevent_cse=False)
    x, _ = jax.lax.scan(step, model.embed(token_ids, compute_dtype), model.layers)
    return model.norm(x)


def decode_hidden(
    config: ModelConfig,
    params: Params,
    token_ids: jax.Array,
    positions: jax.Array,
    cache: KVCache,
    *,
    compute_dtype: jnp.dtype = jnp.float32,
) -> tuple[jax.Array, KVCache]:
    """Hidden states [B, T, D] of tokens [B, T] at `positions` [B, T], and the cache with them written at those slots.

    A query at position p sees slots up to p, so slots beyond a row's length may hold anything.
    """
    model = bind(config, params)
    cos, sin = rope_angles(config, positions)
    mask = jnp.arange(cache.keys.shape[3]) <= positions[:, :, None]

    def step(
        carry: tuple[jax.Array, KVCache], scanned: tuple[jax.Array, DecoderLayer]
    ) -> tuple[tuple[jax.Array, KVCache], None]:
        x, cache = carry
        index, layer = scanned

        def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, KVCache]:
            new = KVCache(write(cache.keys, index, positions, k), write(cache.values, index, positions, v))
            return attend(q, new.keys[index].astype(q.dtype), new.values[index].astype(q.dtype), mask), new

        return layer(x, cos, sin, mix), None

    indices = jnp.arange(config.num_hidden_layers)
    (x, cache), _ = jax.lax.scan(step, (model.embed(token_ids, compute_dtype), cache), (indices, model.layers))
    return model.norm(x), cache


def logits(config: ModelConfig, params: Params, hidden: jax.Array) -> jax.Array:
    """hidden [..., D] -> logits [..., V] float32."""
    return bind(config, params).logits(hidden)
