"""Every published size: the parameter tree without an array, counted two ways."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.config import MeshConfig, ModelConfig
from s1_jax.model import transformer
from s1_jax.model.sizes import PUBLISHED
from s1_jax.sharding import DECODE_RULES, TRAIN_RULES, Layout, make_mesh
from s1_jax.training.flops import matmul_parameters

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
COUNTS = {  # as the model cards and the index files of the checkpoints have them
    "Qwen/QwQ-32B": 32_763_876_352,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 8_030_261_248,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": 70_553_706_496,
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


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count_of_other_families(name):
    config = PUBLISHED[name]
    D, F, V, L = config.hidden_size, config.intermediate_size, config.vocab_size, config.num_hidden_layers
    queries, pairs = (heads * config.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads))
    own = queries + 2 * pairs if config.family.qkv_bias else 2 * config.head_dim if config.family.qk_norm else 0
    layer = 2 * D * (queries + pairs) + own + 3 * D * F + 2 * D
    by_hand = V * D * (1 if config.tie_word_embeddings else 2) + L * layer + D
    shapes = transformer.abstract_params(config)
    assert by_hand == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == COUNTS[name]
    assert matmul_parameters(config) == L * (layer - own - 2 * D) + V * D
    for rules in (TRAIN_RULES, DECODE_RULES):
        layout = Layout(make_mesh(MeshConfig(fsdp=4, tensor=2)), rules)
        shardings = layout.tree(transformer.param_axes(config), shapes)
        assert jax.tree.structure(shardings) == jax.tree.structure(shapes)


def test_published_sizes_are_those_of_the_files():
    for size in SIZES:
        assert PUBLISHED[f"Qwen/Qwen2.5-{size}-Instruct"] == ModelConfig.from_dict(published(size))


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
