"""Every op against transformers' own module, with the weights of a random layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from s1_jax.model import attention, transformer
from s1_jax.model.kv_cache import LayerCache
from tests.reference import FAMILIES, LLAMA3

TOLERANCE = 1e-4  # of the largest reference value: float32 sums of a few hundred terms in another order
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
SHAPES = {"G=N": {"num_key_value_heads": 1}, "G=1": {"num_key_value_heads": 4}, **FAMILIES}
B, T = 2, 48


def assert_close(mine, reference, tolerance=TOLERANCE):
    reference = reference.detach().numpy() if isinstance(reference, torch.Tensor) else np.asarray(reference)
    assert np.abs(np.asarray(mine) - reference).max() <= tolerance * np.abs(reference).max()


def first_layer(model):
    """Our first layer, bound to its parameters, and the reference's."""
    ours = transformer.bind(model.config, model.params)
    return jax.tree.map(lambda leaf: leaf[0], ours.layers), model.torch_model.model.layers[0]


def random_hidden(model, seed=0):
    return np.random.default_rng(seed).normal(size=(B, T, model.config.hidden_size)).astype(np.float32)


def test_rms_norm(tiny_model):
    ours, theirs = first_layer(tiny_model())
    x = random_hidden(tiny_model()) * 30
    assert_close(ours.input_layernorm(jnp.asarray(x)), theirs.input_layernorm(torch.tensor(x)))


def test_rms_norm_eps_matters(tiny_model):
    model = tiny_model(rms_norm_eps=1e-2)
    ours, theirs = first_layer(model)
    x = random_hidden(model) * 0.01
    assert_close(ours.input_layernorm(jnp.asarray(x)), theirs.input_layernorm(torch.tensor(x)))


def test_norms_of_heads(tiny_model):
    model = tiny_model(**FAMILIES["qwen3"])
    ours, theirs = first_layer(model)
    x = np.random.default_rng(0).normal(size=(B, T, 4, model.config.head_dim)).astype(np.float32) * 30
    for name in ("q_norm", "k_norm"):
        norms = (getattr(layer.self_attn, name) for layer in (ours, theirs))
        assert_close(next(norms)(jnp.asarray(x)), next(norms)(torch.tensor(x)))


def test_mlp(tiny_model):
    ours, theirs = first_layer(tiny_model())
    x = random_hidden(tiny_model())
    assert_close(ours.mlp(jnp.asarray(x)), theirs.mlp(torch.tensor(x)))


def test_embedding(tiny_model):
    model = tiny_model()
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (B, T))
    ours = transformer.bind(model.config, model.params).embed(jnp.asarray(ids), jnp.float32)
    np.testing.assert_array_equal(ours, model.torch_model.model.embed_tokens(torch.tensor(ids)).detach().numpy())


@pytest.mark.parametrize(
    "rope",
    [
        {},
        {"rope_theta": 1e6},
        {"rope_scaling": YARN},
        {"rope_scaling": YARN | {"factor": 40.0, "beta_fast": 16.0, "beta_slow": 2.0}, "rope_theta": 1e6},
        {"rope_scaling": YARN | {"attention_factor": 0.7}},
        {"rope_scaling": YARN | {"factor": 1.0}},
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        {"rope_scaling": LLAMA3, "rope_theta": 5e5},
    ],
    ids=[
        "default",
        "theta",
        "yarn",
        "yarn-betas",
        "yarn-attention-factor",
        "yarn-factor-1",
        "yarn-no-original",
        "llama3",
    ],
)
def test_rope(tiny_model, rope):
    model = tiny_model(**rope)
    positions = np.random.default_rng(0).integers(0, model.config.max_position_embeddings, (B, T))
    heads = np.random.default_rng(1).normal(size=(B, T, 4, model.config.head_dim)).astype(np.float32)
    cos, sin = attention.rope_angles(model.config, jnp.asarray(positions))
    theirs = model.torch_model.model.rotary_emb(torch.tensor(heads), torch.tensor(positions))
    turned, _ = apply_rotary_pos_emb(*[torch.tensor(heads)] * 2, *theirs, unsqueeze_dim=2)
    assert_close(attention.apply_rope(jnp.asarray(heads), cos, sin), turned)


def test_rope_angles_stay_exact_in_bfloat16(tiny_model):
    """bfloat16 rounds 257 to 256, and sin(257) is nothing like sin(256): angles are always float32."""
    config = tiny_model().config
    cos, sin = attention.rope_angles(config, jnp.asarray([[257]]))
    assert cos.dtype == sin.dtype == jnp.float32
    np.testing.assert_allclose(sin[0, 0, 0], np.sin(257.0), atol=1e-4)


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_attention(tiny_model, changes):
    model = tiny_model(**changes)
    ours, theirs = first_layer(model)
    x = random_hidden(model)
    positions = np.broadcast_to(np.arange(T), (B, T))
    cos, sin = attention.rope_angles(model.config, jnp.asarray(positions))
    q, k, v = ours.self_attn.project(jnp.asarray(x), cos, sin)
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)), (B, T, T))
    mine = ours.self_attn.o_proj(
        attention.attend(q, LayerCache(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)), mask)
    )
    hidden = torch.tensor(x)
    angles = model.torch_model.model.rotary_emb(hidden, torch.tensor(positions.copy()))
    additive = torch.full((T, T), torch.finfo(torch.float32).min).triu(1)[None, None]
    assert_close(mine, theirs.self_attn(hidden, position_embeddings=angles, attention_mask=additive)[0])


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_layer(tiny_model, changes):
    model = tiny_model(**changes)
    ours, theirs = first_layer(model)
    x = random_hidden(model)
    positions = np.broadcast_to(np.arange(T), (B, T))
    cos, sin = attention.rope_angles(model.config, jnp.asarray(positions))
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)), (B, T, T))

    def mix(q, k, v):
        return attention.attend(q, LayerCache(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)), mask), None

    mine, _ = ours(jnp.asarray(x), cos, sin, mix)
    hidden = torch.tensor(x)
    angles = model.torch_model.model.rotary_emb(hidden, torch.tensor(positions.copy()))
    additive = torch.full((T, T), torch.finfo(torch.float32).min).triu(1)[None, None]
    reference = theirs(hidden, attention_mask=additive, position_embeddings=angles)
    assert_close(mine, reference[0] if isinstance(reference, tuple) else reference)
