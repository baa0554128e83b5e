"""config.json in and out, and options that cannot be."""

import pytest
from transformers import AutoConfig, Qwen2Config

from s1_jax.config import BudgetConfig, ModelConfig, SamplingConfig, YarnScaling
from s1_jax.errors import UserError

TINY = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"use_sliding_window": True, "max_window_layers": 2}, "sliding"),
        ({"model_type": "gemma3"}, "'gemma3'"),
        ({"model_type": "qwen3_moe"}, "'qwen3_moe' .* qwen2, qwen3, llama are"),
        ({"model_type": "qwen2_moe"}, "'qwen2_moe'"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "'linear'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e6}}, "factor"),
        ({"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 64}}, "factor"),
        ({"num_attention_heads": 5}, "num_attention_heads 5"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"head_dim": 15}, "heads have 15 dimensions"),
    ],
    ids=str,
)
def test_what_the_model_cannot_compute_is_refused(setting, words):
    with pytest.raises(UserError, match=words) as error:
        ModelConfig.from_dict(TINY | setting)
    assert "\n" not in str(error.value)


def test_missing_fields_are_named_together():
    with pytest.raises(UserError, match="lacks vocab_size, hidden_size"):
        ModelConfig.from_dict({k: v for k, v in TINY.items() if k not in ("vocab_size", "hidden_size")})


def test_sliding_window_that_is_off_is_no_matter():
    assert ModelConfig.from_dict(TINY | {"use_sliding_window": False, "sliding_window": 131072}) == ModelConfig(**TINY)


@pytest.mark.parametrize("kind", ["rope_type", "type"])
def test_yarn_is_read_from_old_and_new_files(kind):
    expected = YarnScaling(**YARN)
    old = {"rope_theta": 1e6, "rope_scaling": {kind: "yarn", **YARN}}
    new = {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, **YARN}}
    for values in (old, new):
        config = ModelConfig.from_dict(TINY | values)
        assert (config.rope_theta, config.rope_scaling) == (1e6, expected)


@pytest.mark.parametrize(
    "rope_scaling",
    [None, YarnScaling(**YARN), YarnScaling(**YARN, beta_fast=16.0, attention_factor=0.8, truncate=False)],
)
def test_transformers_reads_what_we_write(tmp_path, rope_scaling):
    config = ModelConfig(**TINY, rope_theta=5e5, tie_word_embeddings=True, rope_scaling=rope_scaling)
    assert ModelConfig.from_dict(config.to_dict()) == config
    theirs = Qwen2Config.from_dict(config.to_dict())
    theirs.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), Qwen2Config)
    back = ModelConfig.from_dict(AutoConfig.from_pretrained(tmp_path).to_dict())
    assert back == config


@pytest.mark.parametrize(
    "values",
    [
        {"min_thinking_tokens": -1},
        {"max_thinking_tokens": -1},
        {"num_ignore": -1},
        {"min_thinking_tokens": 9, "max_thinking_tokens": 8},
    ],
    ids=str,
)
def test_budgets_that_cannot_be(values):
    with pytest.raises(UserError):
        BudgetConfig(**values)


def test_a_maximum_of_zero_goes_with_the_default_minimum():
    assert BudgetConfig(max_thinking_tokens=0).max_thinking_tokens == 0


@pytest.mark.parametrize(
    "values", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": 2}], ids=str
)
def test_sampling_that_cannot_be(values):
    with pytest.raises(UserError):
        SamplingConfig(**values)
