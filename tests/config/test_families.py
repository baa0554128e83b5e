"""The config.json of each family against transformers: what it may leave out, what it turns, and what is refused."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from s1_jax.config import Llama3Scaling, ModelConfig, YarnScaling
from s1_jax.config.model_config import FAMILIES
from s1_jax.errors import UserError
from s1_jax.model.attention import rope_frequencies

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ROUNDING = 2e-6  # relative: float32 powers in two libraries
LLAMA3 = Llama3Scaling(8.0, 64, 1.0, 4.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_out_is_as_in_transformers(family):
    theirs = AutoConfig.for_model(family, **SIZES)
    ours = ModelConfig.from_dict({"model_type": family, **SIZES})
    for name in ("max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "initializer_range"):
        assert getattr(ours, name) == getattr(theirs, name), name
    layer = AutoModelForCausalLM.from_config(theirs).model.layers[0].self_attn
    assert ours.head_dim == layer.head_dim
    assert (layer.q_proj.bias is not None, layer.v_proj.bias is not None) == 2 * (ours.family.qkv_bias,)
    assert hasattr(layer, "q_norm") == ours.family.qk_norm


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scaling", [None, LLAMA3, YarnScaling(4.0, 64)], ids=["plain", "llama3", "yarn"])
def test_positions_are_those_of_transformers(family, scaling):
    ours = ModelConfig(
        **SIZES, model_type=family, head_dim=24, rope_theta=5e5, rope_scaling=scaling, max_position_embeddings=256
    )
    rotary = AutoModelForCausalLM.from_config(AutoConfig.for_model(**ours.to_dict())).model.rotary_emb
    frequencies, factor = rope_frequencies(ours)
    np.testing.assert_allclose(frequencies, rotary.inv_freq.numpy(), rtol=ROUNDING)
    assert factor == pytest.approx(rotary.attention_scaling, rel=ROUNDING)
    assert rotary(torch.zeros(1, 2, 24), torch.arange(2)[None])[0].shape[-1] == 24


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "scaling", [None, LLAMA3, YarnScaling(4.0, 64, truncate=False)], ids=["plain", "llama3", "yarn"]
)
def test_transformers_reads_what_we_write(tmp_path, family, scaling):
    ours = ModelConfig(**SIZES, model_type=family, head_dim=32, rope_scaling=scaling, tie_word_embeddings=True)
    assert ModelConfig.from_dict(json.loads(json.dumps(ours.to_dict()))) == ours
    theirs = AutoConfig.for_model(**ours.to_dict())
    assert type(theirs).__name__.startswith(FAMILIES[family].architecture.removesuffix("ForCausalLM"))
    theirs.save_pretrained(tmp_path)
    assert ModelConfig.from_dict(AutoConfig.from_pretrained(tmp_path).to_dict()) == ours


def test_only_yarn_stretches_the_context():
    sizes = {**SIZES, "max_position_embeddings": 100}
    assert ModelConfig(**sizes, rope_scaling=YarnScaling(4.0, 64)).context_length == 256
    assert ModelConfig(**sizes, model_type="llama", rope_scaling=LLAMA3).context_length == 100


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("qwen3", {"attention_bias": True}, "attention_bias true is not supported"),
        ("llama", {"attention_bias": True}, "attention_bias true is not supported"),
        ("llama", {"mlp_bias": True}, "mlp_bias true is not supported"),
        ("llama", {"mlp_bias": "no"}, "mlp_bias is 'no'"),
        (
            "qwen3",
            {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 64},
            "layer 1 .* window of 64",
        ),
        ("qwen3", {"head_dim": 7}, "attention heads have 7 dimensions"),
        ("llama", {"hidden_size": 66}, "hidden_size 66 is not a multiple"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("qwen3_moe", {}, "model_type 'qwen3_moe' is not supported; the dense models qwen2, qwen3, llama are"),
        ("mistral", {}, "model_type 'mistral'"),
    ],
)
def test_what_cannot_be_computed_is_one_line(family, changes, words):
    with pytest.raises(UserError, match=f"^a/config.json: {words}") as error:
        ModelConfig.from_dict({"model_type": family, **SIZES, **changes}, "a/config.json")
    assert "\n" not in str(error.value)
