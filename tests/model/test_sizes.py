"""Every Qwen2.5 size from its published config.json: the parameter tree without an array, counted two ways."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.config import MeshConfig, ModelConfig
from s1_jax.model import transformer
from s1_jax.sharding import DECODE_RULES, TRAIN_RULES, Layout, make_mesh

# hidden_size, intermediate_size, layers, query heads, kv heads, vocab_size, tied, parameters
SIZES = {
    "0.5B": (896, 4864, 24, 14, 2, 151936, True, 494_032_768),
    "1.5B": (1536, 8960, 28, 12, 2, 151936, True, 1_543_714_304),
    "3B": (2048, 11008, 36, 16, 2, 151936, True, 3_085_938_688),
    "7B": (3584, 18944, 28, 28, 4, 152064, False, 7_615_616_512),
    "14B": (5120, 13824, 48, 40, 8, 152064, False, 14_770_033_664),
    "32B": (5120, 27648, 64, 40, 8, 152064, False, 32_763_876_352),
    "72B": (8192, 29568, 80, 64, 8, 152064, False, 72_706_203_648),
}
SMALL = {"vocab_size": 96, "hidden_size": 56, "intermediate_size": 96, "num_hidden_layers": 2}


def published(size):
    """What stands in the `config.json` of that size."""
    D, F, L, N, K, V, tied, _ = SIZES[size]
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": D,
        "initializer_range": 0.02,
        "intermediate_size": F,
        "max_position_embeddings": 32768,
        "max_window_layers": L,
        "model_type": "qwen2",
        "num_attention_heads": N,
        "num_hidden_layers": L,
        "num_key_value_heads": K,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": V,
    }


@pytest.mark.parametrize("size", SIZES)
def test_parameter_count(size):
    D, F, L, N, K, V, tied, count = SIZES[size]
    H = D // N
    attention = D * N * H + N * H + 2 * (D * K * H + K * H) + N * H * D
    by_hand = V * D * (1 if tied else 2) + L * (attention + 3 * D * F + 2 * D) + D
    assert by_hand == count
    tree = transformer.abstract_params(ModelConfig.from_dict(published(size)), jnp.bfloat16)
    leaves = jax.tree.leaves(tree)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) and leaf.dtype == jnp.bfloat16 for leaf in leaves)
    assert sum(math.prod(leaf.shape) for leaf in leaves) == count
    assert ("lm_head" in tree) == (not tied)


@pytest.mark.parametrize("rules", [TRAIN_RULES, DECODE_RULES], ids=["train", "decode"])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_a_place_on_a_mesh(size, rules):
    config = ModelConfig.from_dict(published(size))
    layout = Layout(make_mesh(MeshConfig(fsdp=4, tensor=2)), rules)
    shapes = transformer.abstract_params(config)
    shardings = layout.tree(transformer.param_axes(config), shapes)
    assert jax.tree.structure(shardings) == jax.tree.structure(shapes)


@pytest.mark.parametrize("tied", [False, True])
def test_init_follows_the_abstract_tree(tied):
    config = ModelConfig.from_dict(published("0.5B") | SMALL | {"tie_word_embeddings": tied})
    params = jax.jit(partial(transformer.init_params, config, dtype=jnp.float32))(jax.random.key(0))
    shapes = transformer.abstract_params(config)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), shapes
    )
    np.testing.assert_array_equal(params["norm"]["weight"], 1)
    np.testing.assert_array_equal(params["layers"]["self_attn"]["q_proj"]["bias"], 0)
    kernel = np.asarray(params["layers"]["mlp"]["up_proj"]["kernel"])
    assert 0.95 < kernel.std() / config.initializer_range < 1.05
    assert not np.array_equal(kernel[0], kernel[1])  # each layer has its own key
