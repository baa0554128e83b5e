"""The compiled functions of decoding: what they hold of memory and where their states lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.config import MeshConfig
from s1_jax.decoding.core.token_ids import make_markers
from s1_jax.decoding.device.programs import Programs
from s1_jax.model.transformer import param_axes, unstack
from s1_jax.sharding import DECODE_RULES, Layout, make_mesh
from tests.tokenizer import byte_tokenizer

V, LENGTH = 264, 256


def make_programs(tiny_model, layout=None):
    tiny = tiny_model(1, vocab_size=V, max_position_embeddings=LENGTH)
    markers = make_markers(byte_tokenizer(), V)
    params = tiny.params
    if layout is not None:
        params = jax.device_put(params, layout.tree(param_axes(tiny.config), params))
    return Programs(tiny.config, unstack(params), markers, LENGTH, jnp.float32, jnp.float32, layout)


def test_a_cache_grows_layer_by_layer_and_the_old_one_is_gone(tiny_model):
    programs = make_programs(tiny_model)
    state = programs.empty_slots(4, 64)
    grown = programs.resize(state, 128)
    assert all(layer.capacity == 128 for layer in grown.cache)
    assert all(array.is_deleted() for array in jax.tree.leaves(state.cache))
    np.testing.assert_array_equal(np.asarray(grown.logits), 0.0)


def test_states_lie_in_one_place_whoever_gives_them(tiny_model):
    layout = Layout(make_mesh(MeshConfig(fsdp=4, tensor=2)), DECODE_RULES)
    programs = make_programs(tiny_model, layout)
    state = programs.empty_slots(8, 64)
    assert state.cache[0].keys.sharding.is_equivalent_to(layout.sharding("batch", "act_kv_heads", None, None), 4)
    grown = programs.resize(state, 128)
    for other in (grown, programs.take(grown, np.arange(8, dtype=np.int32))):
        for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
            assert two.sharding.is_equivalent_to(one.sharding, one.ndim)


def test_an_array_that_lies_on_one_device_is_refused_and_not_copied_to_the_mesh_in_every_call(tiny_model):
    layout = Layout(make_mesh(MeshConfig(fsdp=4, tensor=2)), DECODE_RULES)
    programs = make_programs(tiny_model, layout)
    state = programs.empty_slots(8, 64)
    none = np.zeros(8, bool)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed device-to-device transfer"):
        programs.end(state, jnp.asarray(none))
    programs.end(state, none)  # the host's own arrays may be given
