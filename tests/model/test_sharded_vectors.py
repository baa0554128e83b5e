"""Biases and norms on a mesh: the same values and gradients, and no sum between devices within the loop over layers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.config import MeshConfig
from s1_jax.model.sharded_vectors import along_last, spread
from s1_jax.model.transformer import PARAM_AXES, hidden_states, param_axes
from s1_jax.sharding import TRAIN_RULES, Layout, make_mesh

TOLERANCE = 1e-5  # of the largest value: float32 sums in another order
L, B, T, N = 3, 8, 16, 4
SIZES = {"residual_batch": B, "residual_length": T, "batch": B, "length": T, "act_heads": 4, "act_kv_heads": 2}


def layout_of(**sizes):
    return Layout(make_mesh(MeshConfig(**sizes)), TRAIN_RULES)


@pytest.mark.parametrize("shape", [(B, T, N), (B, T, 2, N)])
def test_copies_meet_tokens_as_the_vector_does(shape):
    layers = {"input_layernorm": {"weight": jnp.arange(L * N, dtype=jnp.float32).reshape(L, N)}}
    axes = {"input_layernorm": PARAM_AXES["layers"]["input_layernorm"]}
    x = jnp.ones(shape)
    with layout_of(fsdp=2, context=2, tensor=2).use():
        copies = spread(layers, axes, SIZES)["input_layernorm"]["weight"]
        assert copies.shape == (L, 2, 4, N)
        met = x * along_last(copies[1], x)
    assert np.array_equal(met, np.broadcast_to(layers["input_layernorm"]["weight"][1], shape))


def test_layers_stay_as_they_are_without_a_mesh_and_where_tokens_do_not_divide():
    layers = {"input_layernorm": {"weight": jnp.ones((L, N))}}
    axes = {"input_layernorm": PARAM_AXES["layers"]["input_layernorm"]}
    assert spread(layers, axes, SIZES) is layers
    with layout_of(fsdp=8).use():
        assert spread(layers, axes, SIZES | {"residual_batch": B + 1})["input_layernorm"]["weight"].shape == (L, N)


@pytest.mark.parametrize("heads", [4, 2])
def test_norms_of_heads_have_a_copy_for_each_piece_of_heads(heads):
    name = {4: "q_norm", 2: "k_norm"}[heads]
    weight = jnp.arange(L * N, dtype=jnp.float32).reshape(L, N)
    x = jnp.ones((B, T, heads, N))
    with layout_of(fsdp=2, context=2, tensor=2).use():
        copies = spread({name: {"weight": weight}}, {name: PARAM_AXES["layers"]["self_attn"][name]}, SIZES)
        assert copies[name]["weight"].shape == (L, 2, 2, 2, N)
        met = x * along_last(copies[name]["weight"][1], x)
    assert np.array_equal(met, np.broadcast_to(weight[1], x.shape))


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_no_layer_sums_gradients_of_vectors_between_devices(tiny_model, model_type):
    tiny = tiny_model(vocab_size=96, hidden_size=32, intermediate_size=64, model_type=model_type)
    ids = jnp.zeros((B, T), jnp.int32)

    def loss(params):
        states = hidden_states(tiny.config, params, ids, ids, ids + 1, remat="full")
        return (states.astype(jnp.float32) ** 2).sum()

    with (layout := layout_of(fsdp=2, context=2, tensor=2)).use():
        params = jax.device_put(tiny.params, layout.tree(param_axes(tiny.config), tiny.params))
        text = jax.jit(jax.grad(loss)).lower(params).compile().as_text()
    bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
    inside = [part for part in re.split(r"\n(?=%)", text) if part.split()[0].lstrip("%") in bodies]
    sums = [line for part in inside for line in part.splitlines() if " all-reduce(" in line]
    assert sums  # of attention, whose keys XLA gathers on CPU
    assert not [line for line in sums if "reduce_sum" in line]
