"""The dense decoder-only transformer in Flax NNX, used as a plain pytree: Qwen2, Qwen3 and Llama.

What differs between them is in `ModelConfig.family`. Parameters travel as a nested dict named as in Hugging Face. For
training `layers.*` are stacked on a leading [L] and scanned; for decoding each layer has arrays of its own (`unstack`),
so that a step reads them where they lie. The leaf `kernel` of a linear layer, Flax's name, which checkpoints hold, is
its weight [in, out]: the transpose of Hugging Face's `weight`. Letters: B batch, T length, L layers, D hidden_size, F
intermediate_size, N query heads, K kv heads, H head_dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from s1_jax.config import ModelConfig
from s1_jax.errors import UserError
from s1_jax.model import splash, stored_weights
from s1_jax.model.attention import apply_rope, rope_angles
from s1_jax.model.packed_attention import attend_packed
from s1_jax.model.sharded_matmul import WeightAxes, contract, expand
from s1_jax.model.sharded_vectors import along_last, spread
from s1_jax.sharding import RESIDUAL, constrain, current_layout, current_row_order, platform, shard_over

Params = dict[str, Any]


PARAM_AXES: Params = {
    "embed_tokens": {"weight": ("table_vocab", "table_embed")},
    "layers": {
        "input_layernorm": {"weight": ("layers", "norm")},
        "self_attn": {
            "q_norm": {"weight": ("layers", "q_norm")},
            "k_norm": {"weight": ("layers", "k_norm")},
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
    "lm_head": {"kernel": ("head_embed", "vocab")},
}

# What the backward pass keeps of each layer; every policy keeps the layer's input, and what is not kept is recomputed.
_policies = jax.checkpoint_policies
_attention = (splash.KEPT, splash.SAVED, "residual")
REMAT_POLICIES: dict[str, Callable[..., Any]] = {
    "none": _policies.everything_saveable,
    "minimal": _policies.save_only_these_names(*_attention, "gate", "up"),  # no matmul is repeated
    "up": _policies.save_only_these_names(*_attention, "gate"),
    "mlp": _policies.save_only_these_names(*_attention),
    "attention": _policies.save_only_these_names(splash.SAVED, "residual"),
    "full": _policies.nothing_saveable,
    # as full, and the layers' inputs wait in the host's memory
    "offload": _policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["layer_input"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


class Linear(nnx.Module):
    """Linear layer from [B, T, in] to [B, T, out], whose weight `kernel` [in, out] has the logical axes `axes`."""

    def __init__(
        self,
        config: ModelConfig,
        key: jax.Array,
        size_in: int,
        size_out: int,
        dtype: jnp.dtype,
        axes: WeightAxes,
        bias: bool = False,
    ):
        self.axes = axes
        self.kernel = nnx.Param(config.initializer_range * jax.random.normal(key, (size_in, size_out), dtype))
        self.bias = nnx.Param(jnp.zeros((size_out,), dtype)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return contract(x, self.kernel[...], self.axes) if self.axes[1] == "embed" else side_by_side(x, self)[0]

    def add_bias(self, y: jax.Array) -> jax.Array:
        """Add the bias in float32, so that its gradient, a sum over all tokens, is one in float32."""
        if self.bias is None:
            return y
        return (y.astype(jnp.float32) + along_last(self.bias[...], y)).astype(y.dtype)


def side_by_side(x: jax.Array, *linears: Linear) -> list[jax.Array]:
    """Apply several layers to the same x [B, T, D]."""
    products = expand(x, tuple(linear.kernel[...] for linear in linears), tuple(linear.axes for linear in linears))
    return [linear.add_bias(y) for linear, y in zip(linears, products, strict=True)]


class RMSNorm(nnx.Module):
    """Normalization x / rms(x) * weight over the last axis, of `size`, in float32."""

    def __init__(self, config: ModelConfig, size: int, dtype: jnp.dtype):
        self.eps = config.rms_norm_eps
        self.weight = nnx.Param(jnp.ones((size,), dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (wide * along_last(self.weight[...], x)).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query self-attention, with biases on Q, K and V or norms on the heads of Q and K, by family."""

    def __init__(self, config: ModelConfig, key: jax.Array, dtype: jnp.dtype):
        D, H, N, K = config.hidden_size, config.head_dim, config.num_attention_heads, config.num_key_value_heads
        keys, bias = jax.random.split(key, 4), config.family.qkv_bias
        self.head_dim = H
        self.q_proj = Linear(config, keys[0], D, N * H, dtype, ("embed", "heads"), bias)
        self.k_proj = Linear(config, keys[1], D, K * H, dtype, ("embed", "kv_heads"), bias)
        self.v_proj = Linear(config, keys[2], D, K * H, dtype, ("embed", "kv_heads"), bias)
        self.o_proj = Linear(config, keys[3], N * H, D, dtype, ("heads", "embed"))
        self.q_norm, self.k_norm = (RMSNorm(config, H, dtype) if config.family.qk_norm else None for _ in "qk")

    def project(self, x: jax.Array, cos: jax.Array, sin: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Project x [B, T, D] to rotated queries [B, T, N, H], rotated keys [B, T, K, H] and values [B, T, K, H]."""
        B, T, _ = x.shape
        projected = side_by_side(x, self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (y.reshape(B, T, -1, self.head_dim) for y in projected)
        q = constrain(q, "batch", "length", "act_heads", "head_dim")
        k, v = (constrain(y, "batch", "length", "act_kv_heads", "head_dim") for y in (k, v))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return checkpoint_name(apply_rope(q, cos, sin), splash.KEPT), apply_rope(k, cos, sin), v


class MLP(nnx.Module):
    """The SwiGLU block of a layer: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, key: jax.Array, dtype: jnp.dtype):
        D, F = config.hidden_size, config.intermediate_size
        keys = jax.random.split(key, 3)
        self.gate_proj = Linear(config, keys[0], D, F, dtype, ("embed", "mlp"))
        self.up_proj = Linear(config, keys[1], D, F, dtype, ("embed", "mlp"))
        self.down_proj = Linear(config, keys[2], F, D, dtype, ("mlp", "embed"))

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, up = (constrain(y, "batch", "length", "act_mlp") for y in side_by_side(x, self.gate_proj, self.up_proj))
        return self.down_proj(jax.nn.silu(checkpoint_name(gate, "gate")) * checkpoint_name(up, "up"))


class DecoderLayer(nnx.Module):
    """Pre-norm attention and MLP, each with a residual."""

    def __init__(self, config: ModelConfig, key: jax.Array, dtype: jnp.dtype):
        attention_key, mlp_key = jax.random.split(key)
        self.input_layernorm = RMSNorm(config, config.hidden_size, dtype)
        self.self_attn = Attention(config, attention_key, dtype)
        self.post_attention_layernorm = RMSNorm(config, config.hidden_size, dtype)
        self.mlp = MLP(config, mlp_key, dtype)

    def __call__(
        self, x: jax.Array, cos: jax.Array, sin: jax.Array, mix: Callable[..., tuple[jax.Array, Any]]
    ) -> tuple[jax.Array, Any]:
        """Map x [B, T, D] to [B, T, D], and return what `mix` keeps beside it.

        `mix(q, k, v)` -> ([B, T, N * H], kept) is the attention over tokens.
        """
        x = checkpoint_name(x, "layer_input")
        mixed, kept = mix(*self.self_attn.project(self.input_layernorm(x), cos, sin))
        x = checkpoint_name(constrain(x + self.self_attn.o_proj(mixed), *RESIDUAL), "residual")
        return constrain(x + self.mlp(self.post_attention_layernorm(x)), *RESIDUAL), kept


class Embedding(nnx.Module):
    """The embedding table, one row [D] for each of V tokens."""

    def __init__(self, config: ModelConfig, key: jax.Array, dtype: jnp.dtype):
        shape = (config.vocab_size, config.hidden_size)
        self.weight = nnx.Param(config.initializer_range * jax.random.normal(key, shape, dtype))


class Transformer(nnx.Module):
    """The whole model, whose `layers`, if `stacked`, are one DecoderLayer with a leading [L] on every parameter."""

    def __init__(self, config: ModelConfig, key: jax.Array, dtype: jnp.dtype, stacked: bool = True):
        embed_key, layers_key, head_key = jax.random.split(key, 3)
        layer_keys = jax.random.split(layers_key, config.num_hidden_layers)

        def layer(layer_key: jax.Array) -> DecoderLayer:
            return DecoderLayer(config, layer_key, dtype)

        self.embed_tokens = Embedding(config, embed_key, dtype)
        self.layers = jax.vmap(layer)(layer_keys) if stacked else nnx.List(map(layer, layer_keys))
        self.norm = RMSNorm(config, config.hidden_size, dtype)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else Linear(config, head_key, config.hidden_size, config.vocab_size, dtype, ("head_embed", "vocab"))
        )

    def embed(self, token_ids: jax.Array, compute_dtype: jnp.dtype) -> jax.Array:
        """Look up token_ids [B, T] in the embedding table: [B, T, D]."""
        return constrain(lookup(self.embed_tokens.weight[...], token_ids, compute_dtype), *RESIDUAL)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Multiply hidden [..., D] by the output head: [..., V] float32."""
        scores = jnp.matmul(hidden, self.head.astype(hidden.dtype), preferred_element_type=jnp.float32)
        # in pieces first: whoever wants them whole would else have XLA gather the head
        return constrain(scores, "batch", *[None] * (scores.ndim - 2), "act_vocab")

    @property
    def head(self) -> jax.Array:
        """The output head [D, V]: its own, or the embedding table transposed."""
        return self.embed_tokens.weight[...].T if self.lm_head is None else self.lm_head.kernel[...]


def lookup(table: jax.Array, token_ids: jax.Array, compute_dtype: jnp.dtype) -> jax.Array:
    """Look up the rows of `table` [V, D] for token_ids [B, T]: [B, T, D].

    On a mesh that cuts the table along D every device looks all tokens up in its columns, and an all-to-all brings each
    token's columns together: no device holds, or sums the gradient of, more of the table than it keeps.
    """
    layout = current_layout()
    if (
        layout is None
        or not layout.moves_weights
        or (parts := layout.size("table_embed")) == 1
        or token_ids.shape[0] % layout.size("batch")
        or token_ids.shape[1] % layout.size("residual_length")
    ):
        return jnp.take(table, token_ids, axis=0).astype(compute_dtype)
    axes = layout.axes("table_embed")

    def local(columns: jax.Array, ids: jax.Array) -> jax.Array:  # [V, D / parts], [b, t] -> [b, t, D]
        everyones = jax.lax.all_gather(ids, axes)
        found = jnp.take(columns, everyones, axis=0).astype(compute_dtype)  # [parts, b, t, D / parts]
        mine = jax.lax.all_to_all(found, axes, split_axis=0, concat_axis=0, tiled=True)
        return jnp.moveaxis(mine, 0, 2).reshape(*ids.shape, parts * columns.shape[1])

    return shard_over(layout, local, (("table_vocab", "table_embed"), RESIDUAL[:2]), RESIDUAL)(table, token_ids)


def init_params(config: ModelConfig, key: jax.Array, dtype: jnp.dtype = jnp.float32) -> Params:
    """Make random parameters, normal with `initializer_range` as in Hugging Face; biases 0, norms 1."""
    return nnx.to_pure_dict(nnx.state(Transformer(config, key, dtype)))


def abstract_params(config: ModelConfig, dtype: jnp.dtype = jnp.float32) -> Params:
    """Return the tree of `init_params` as jax.ShapeDtypeStruct, without making an array."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0), dtype))  # the key too stays abstract


def param_axes(config: ModelConfig) -> Params:
    """Return the logical axes of every parameter, in the tree of `init_params`."""

    def axes(path: Any, _: Any) -> Any:
        return reduce(lambda node, entry: node[entry.key], path, PARAM_AXES)

    return jax.tree_util.tree_map_with_path(axes, abstract_params(config))


def unstack(params: Params) -> Params:
    """Give every layer's parameters arrays of their own: `layers` is {0: ..., 1: ..., L - 1: ...}."""
    stacks = params["layers"]

    def layer(i: int) -> Params:
        return jax.tree.map(lambda x: x[i], stacks)

    return params | {"layers": {i: layer(i) for i in range(len(jax.tree.leaves(stacks)[0]))}}


@lru_cache
def _graph(config: ModelConfig, stacked: bool) -> nnx.GraphDef:
    return nnx.graphdef(jax.eval_shape(lambda: Transformer(config, jax.random.key(0), jnp.float32, stacked)))


def bind(config: ModelConfig, params: Params) -> Transformer:
    """Make the NNX module over these parameters, stacked or not, with weights stored in any way."""
    return nnx.merge(_graph(config, 0 not in params["layers"]), nnx.State(stored_weights.whole(params)))


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
    """Compute the final hidden states [B, T, D] of packed rows.

    token_ids, positions, segment_ids are [B, T] int32; a token attends within its own segment; segment 0 is padding.
    The tokens of a row are in the order in which the layout in use holds them (`sharding.place_rows`). `remat` names
    what the backward pass keeps (REMAT_POLICIES). Raises UserError on another policy.
    """
    if remat not in REMAT_POLICIES:
        raise UserError(f"unknown remat policy {remat!r}; known: {', '.join(REMAT_POLICIES)}")
    sizes = dict(zip((*RESIDUAL[:2], "batch", "length"), 2 * token_ids.shape, strict=True))
    sizes |= {"act_heads": config.num_attention_heads, "act_kv_heads": config.num_key_value_heads}
    model = bind(config, params | {"layers": spread(params["layers"], param_axes(config)["layers"], sizes)})
    cos, sin = rope_angles(config, positions)
    mix = MIXERS.get(platform(), einsum_mixer)(segment_ids, current_row_order(token_ids.shape[1]))

    def step(x: jax.Array, layer: DecoderLayer) -> tuple[jax.Array, None]:
        return layer(x, cos, sin, mix)

    if remat != "none":
        step = jax.checkpoint(step, policy=REMAT_POLICIES[remat], prevent_cse=False)
    x = model.embed(token_ids, compute_dtype)
    if isinstance(model.layers, nnx.List):
        for layer in model.layers:
            x, _ = step(x, layer)
    else:
        x, _ = jax.lax.scan(step, x, model.layers)
    return model.norm(x)


Mixer = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, None]]


def einsum_mixer(segment_ids: jax.Array, order: np.ndarray) -> Mixer:
    """Make the attention within documents of packed rows from plain matmuls, for any platform."""

    def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        k, v = (checkpoint_name(x, splash.KEPT) for x in (k, v))
        return checkpoint_name(attend_packed(q, k, v, segment_ids, tuple(order.tolist())), splash.SAVED), None

    return mix


def splash_mixer(segment_ids: jax.Array, order: np.ndarray, *, interpret: bool = False) -> Mixer:
    """Make the same attention from the Pallas kernel, which holds no scores and skips blocks between documents."""
    layout = current_layout()
    visits = splash.plan_visits(segment_ids, order, 1 if layout is None else layout.size("length"))

    def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        return splash.attend_packed(q, k, v, visits, order, interpret=interpret), None

    return mix


MIXERS: dict[str, Callable[[jax.Array, np.ndarray], Mixer]] = {"tpu": splash_mixer}


def logits(config: ModelConfig, params: Params, hidden: jax.Array) -> jax.Array:
    """Compute logits [..., V] float32 from hidden states [..., D]."""
    return bind(config, params).logits(hidden)
