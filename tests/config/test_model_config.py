"""A model's config.json against transformers' Qwen2Config: positions, windows, nulls, and values that cannot be."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from s1_jax import train
from s1_jax.checkpoints import hf
from s1_jax.config import ModelConfig
from s1_jax.errors import UserError
from s1_jax.model.attention import rope_frequencies
from s1_jax.runtime.cli import run_main

CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "quickstart_sft.py")
TINY = {
    "model_type": "qwen2",
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
ROUNDING = 2e-6  # relative: float32 powers in two libraries
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
OLD = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}  # as Qwen's README has it
ONES = [1.0] * 8
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def scaling(**changes):
    return {"rope_scaling": {**YARN, **changes}}


def parameters(**changes):
    return {"rope_parameters": {**YARN, **changes}}


ALIKE = [
    {},
    {"rope_theta": 1e6},
    {"rope_theta": 1000000},
    {"rope_scaling": None, "rope_parameters": None},
    {"rope_scaling": {}, "rope_parameters": {"rope_theta": 5e5}},
    {"rope_scaling": OLD},
    {"rope_scaling": OLD, "rope_theta": 1e6},
    parameters(rope_theta=1e6),
    # both places: rope_scaling wins whole, and a theta within one wins over the one beside it
    {"rope_scaling": OLD, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    {"rope_scaling": OLD, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_theta": 5e5},
    {"rope_scaling": {"rope_type": "default"}, "rope_parameters": YARN},
    {"rope_scaling": {**OLD, "rope_theta": 2e5}, "rope_parameters": {"rope_theta": 1e6}, "rope_theta": 5e5},
    {"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 5e5},
    {"rope_parameters": {"rope_theta": 1e6}, "rope_theta": None},
    # both names of the kind
    scaling(type="default"),
    {"rope_scaling": {**OLD, "rope_type": "default"}},
    {"rope_scaling": {"factor": 4.0}},
    {"rope_scaling": {"type": "default", "factor": 4.0}},
    # nulls and zeros
    scaling(beta_fast=None),
    scaling(beta_fast=0, beta_slow=None),
    scaling(factor=None),
    scaling(attention_factor=None),
    scaling(truncate=None),
    scaling(mscale=None, mscale_all_dim=0),
    # what YaRN has beside its factor
    scaling(beta_fast=16, beta_slow=2),
    scaling(beta_fast=1.0, beta_slow=32.0),
    scaling(beta_fast=4.0, beta_slow=4.0, truncate=False),
    scaling(truncate=True),
    scaling(truncate=False),
    scaling(attention_factor=0.7),
    scaling(attention_factor=1),
    scaling(mscale=2.0),
    scaling(mscale=0.707, mscale_all_dim=1.0),
    scaling(mscale=1.0, mscale_all_dim=0.5, factor=0.5),
    scaling(mscale=1.0, mscale_all_dim=0.5, attention_factor=0.9),
    scaling(factor=1.0),
    scaling(factor=8, original_max_position_embeddings=32),
    {"rope_scaling": {"type": "yarn", "factor": 4.0}},
    {"original_max_position_embeddings": 100, **scaling()},
    {"original_max_position_embeddings": 100, "rope_scaling": {"type": "yarn", "factor": None}},
    # a part of each head: all of it, or a kind that does not look
    {"partial_rotary_factor": 1.0},
    {"partial_rotary_factor": 0.5},
    {"partial_rotary_factor": 1.0, **scaling()},
    scaling(partial_rotary_factor=1.0),
    {"partial_rotary_factor": 0.5, **scaling(partial_rotary_factor=1)},
    {"partial_rotary_factor": None, **scaling()},
    # other kinds that come to plain positions
    {"rope_scaling": {"type": "linear", "factor": 1.0}, "rope_theta": 1e6},
    {"rope_scaling": {**LLAMA3, "factor": 1.0}},
    # Llama 3's
    {"rope_scaling": {**LLAMA3, "factor": 8.0, "original_max_position_embeddings": 64}, "rope_theta": 5e5},
    {"rope_scaling": {**LLAMA3, "factor": 32.0, "high_freq_factor": 1.5}, "original_max_position_embeddings": 100},
    {"rope_scaling": {**LLAMA3, "factor": 2, "low_freq_factor": 3.5}},
    {"rope_parameters": {"rope_type": "longrope", "short_factor": ONES, "long_factor": ONES}},
    {"rope_parameters": {"rope_type": "proportional", "rope_theta": 1e6}},
    # settings that nothing reads
    scaling(finetuned=True),
    {"rope_parameters": {"rope_theta": 1e6, "sliding_attention": {"rope_theta": 1e4}}},
]


def theirs(values):
    """Inverse frequencies and factor of transformers; raises where it cannot turn a head of 16."""
    rotary = Qwen2RotaryEmbedding(Qwen2Config.from_dict(json.loads(json.dumps(values))))
    cos, _ = rotary(torch.zeros(1, 2, 16), torch.arange(2)[None])
    assert cos.shape[-1] == 16
    return rotary.inv_freq.numpy(), rotary.attention_scaling


@pytest.mark.parametrize("changes", ALIKE, ids=json.dumps)
def test_positions_are_those_of_transformers(changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frequencies, factor = rope_frequencies(ModelConfig.from_dict(TINY | changes))
    their_frequencies, their_factor = theirs(TINY | changes)
    np.testing.assert_allclose(frequencies, their_frequencies, rtol=ROUNDING)
    assert factor == pytest.approx(their_factor, rel=ROUNDING)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # a wrong type: transformers raises too
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn'"),
        ({"rope_parameters": [1]}, "rope_parameters is"),
        (scaling(factor="4.0"), "rope_scaling: factor is '4.0'"),
        (parameters(factor="4.0"), "rope_parameters: factor is '4.0'"),
        (scaling(beta_fast="32"), "beta_fast is '32'"),
        (scaling(beta_slow=[1]), "beta_slow is"),
        (scaling(attention_factor="1"), "attention_factor is '1'"),
        (scaling(original_max_position_embeddings=None), "original_max_position_embeddings is null"),
        (scaling(original_max_position_embeddings="64"), "original_max_position_embeddings is '64'"),
        ({"original_max_position_embeddings": None, **scaling()}, "original_max_position_embeddings is null"),
        ({"rope_theta": None}, "rope_theta is null"),
        ({"rope_theta": "1e6"}, "rope_theta is '1e6'"),
        ({"rope_parameters": {"rope_theta": None}, "rope_theta": 1e6}, "rope_parameters: rope_theta is null"),
        ({"rope_scaling": {"rope_type": None, "type": "yarn", "factor": 4.0}}, "rope_type is null"),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, "rope_type is"),
        ({"rope_scaling": {"type": "ntk", "factor": 4.0}}, "type is 'ntk'"),
        (scaling(partial_rotary_factor=None), "partial_rotary_factor is null"),
        (scaling(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "full_attention"),
        ({"rope_scaling": {"type": "yarn"}}, "factor"),
        ({"rope_scaling": {**LLAMA3, "factor": 1.0, "low_freq_factor": None}}, "low_freq_factor is null"),
        # a number that gives no positions
        (scaling(truncate="no"), "truncate is 'no'"),
        (scaling(factor=0), "factor is 0"),
        (scaling(factor=True), "factor is true"),
        (scaling(factor=float("nan")), "factor is nan"),
        (scaling(factor=10**400), "factor is 1000.*[.][.][.]; it must be a number above 0"),
        (scaling(beta_fast=-1), "beta_fast is -1"),
        (scaling(original_max_position_embeddings=0), "original_max_position_embeddings is 0"),
        ({"rope_theta": 0}, "rope_theta is 0"),
        ({"rope_theta": True}, "rope_theta is true"),
        ({"rope_theta": float("inf")}, "rope_theta is inf"),
        ({"rope_theta": 1, **scaling()}, "rope_theta is 1"),
        # other kinds that change something
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"rope_scaling": {**LLAMA3, "factor": 8.0, "high_freq_factor": 1}}, "high_freq_factor is 1; it must be above"),
        ({"rope_scaling": {**LLAMA3, "factor": 8.0, "low_freq_factor": 0}}, "low_freq_factor is 0"),
        ({"rope_scaling": LLAMA3}, "factor"),
        ({"rope_parameters": {"rope_type": "longrope", "short_factor": ONES, "long_factor": [2.0] * 8}}, "'longrope'"),
        # sizes and switches
        ({"hidden_size": "128"}, "hidden_size is '128'; it must be a whole number"),
        ({"hidden_size": 64.0}, "hidden_size is 64.0"),
        ({"hidden_size": True}, "hidden_size is true"),
        ({"hidden_size": None}, "hidden_size is null"),
        ({"hidden_size": [64]}, "hidden_size is"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": -64}, "hidden_size is -64"),
        ({"hidden_size": 2**40}, f"hidden_size is {2**40}"),
        ({"vocab_size": 10**5000}, "vocab_size is a number of thousands of digits"),
        ({"num_attention_heads": "4"}, "num_attention_heads is '4'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        ({"num_key_value_heads": "2"}, "num_key_value_heads is '2'"),
        ({"num_hidden_layers": 10_000_000}, "num_hidden_layers is 10000000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"hidden_size": 60}, "heads have 15 dimensions"),
        ({"max_position_embeddings": None}, "max_position_embeddings is null"),
        ({"max_position_embeddings": "256"}, "max_position_embeddings is '256'"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6'"),
        ({"rms_norm_eps": None}, "rms_norm_eps is null"),
        ({"rms_norm_eps": -1e-6}, "rms_norm_eps is -1e-06"),
        ({"initializer_range": "0.02"}, "initializer_range is '0.02'"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'"),
        ({"tie_word_embeddings": None}, "tie_word_embeddings is null"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1"),
        ({"hidden_act": None}, "hidden_act is null"),
        ({"hidden_act": "SiLU"}, "hidden_act 'SiLU'"),
        ({"model_type": 2}, "model_type is 2"),
        ({"head_dim": "16"}, "head_dim is '16'"),
        ({"quantization_config": "gptq"}, "quantization_config is 'gptq'"),
        # numbers that no model has, and that take memory or overflow before a tensor is looked at
        ({"max_position_embeddings": 2**31 - 1}, "max_position_embeddings is 2147483647; .* from 1 to 10000000"),
        (scaling(factor=10**7), "rope_scaling stretches the context beyond 10,000,000 positions"),
        (scaling(factor=1e300), "factor is 1e[+]300"),
        (scaling(original_max_position_embeddings=1e300), "original_max_position_embeddings is 1e[+]300"),
        (scaling(original_max_position_embeddings=0.5), "original_max_position_embeddings is 0.5"),
        ({"initializer_range": 2**31}, "initializer_range is 2147483648; .* at most 1000"),
        ({"rms_norm_eps": 1e40}, "rms_norm_eps is 1e[+]40; it must be a number of at least 0 and at most 1"),
        (
            {"hidden_size": 2**30, "rope_parameters": {"rope_type": "longrope", "short_factor": ONES, "factor": 1.0}},
            "'longrope'",
        ),
        ({"model_type": "x" * 10**6}, "model_type 'x{60}'"),
        ({"hidden_act": "x" * 10**6}, "hidden_act 'x{60}'"),
        ({"layer_types": ["x" * 10**6] * 3}, "layer_types has 'x{60}'"),
        ({"rope_parameters": {"rope_type": "x" * 10**6}}, "rope_type is 'x{59}[.]"),
        # windows
        ({"use_sliding_window": "true"}, "use_sliding_window is 'true'"),
        ({"sliding_window": "4096"}, "sliding_window is '4096'"),
        ({"max_window_layers": None}, "max_window_layers is null"),
        ({"layer_types": "full_attention"}, "layer_types is 'full_attention'"),
        ({"layer_types": ["full_attention"] * 2}, "each of the 3 layers"),
        ({"layer_types": ["chunked_attention"] * 3}, "'chunked_attention'"),
        ({"layer_types": ["sliding_attention"] * 3}, "layer 0 attends within a sliding window of None"),
        ({"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 255}, "layer 2 .* window of 255"),
        ({"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 256, **scaling(factor=8.0)}, "512"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_one_line_with_file_field_and_value(changes, words):
    with pytest.raises(UserError, match=words) as error:
        ModelConfig.from_dict(TINY | changes, "some/config.json")
    assert str(error.value).startswith("some/config.json") and "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("values", [[], "qwen2", 7, None, [TINY]], ids=str)
def test_a_config_that_is_no_object(values):
    with pytest.raises(UserError, match="not a JSON object"):
        ModelConfig.from_dict(values)


SAME = [
    {"use_sliding_window": True},  # windows begin at layer 28
    {"use_sliding_window": True, "max_window_layers": 3, "sliding_window": 8},
    {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": None},
    {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 256},
    {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 8, "layer_types": ["full_attention"] * 3},
    {"layer_types": ["attention", "full_attention", "full_attention"]},
    {"use_sliding_window": False, "max_window_layers": 0, "sliding_window": 8},
    {"hidden_act": "swish"},
    {"quantization_config": None},
    {"quantization_config": {}},
    {"attention_bias": False},
    {"head_dim": 16},
    {"dtype": "float32", "torch_dtype": "bfloat16"},
]


@pytest.mark.parametrize("changes", SAME, ids=json.dumps)
def test_settings_that_come_to_nothing_change_nothing(changes):
    assert ModelConfig.from_dict(TINY | changes) == ModelConfig.from_dict(TINY)
    ids = torch.arange(60)[None] % 97
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        changed = Qwen2ForCausalLM(Qwen2Config.from_dict(TINY | changes | {"dtype": None, "torch_dtype": None}))
        torch.manual_seed(0)
        plain = Qwen2ForCausalLM(Qwen2Config.from_dict(TINY))
        assert torch.equal(changed(ids).logits, plain(ids).logits)


def test_no_kv_heads_said_are_those_of_the_queries():
    assert ModelConfig.from_dict(TINY | {"num_key_value_heads": None}).num_key_value_heads == 4
    assert Qwen2Config.from_dict(TINY | {"num_key_value_heads": None}).num_key_value_heads == 4


def test_settings_that_nothing_reads_are_named():
    with pytest.warns(UserWarning, match="rope_scaling of type 'yarn': nothing reads finetuned"):
        ModelConfig.from_dict(TINY | scaling(finetuned=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model_type": "qwen2", ', "JSON"),
        ("[]", "an object is needed"),
        ("[" * 100_000, "nested"),
        (json.dumps(TINY | {"hidden_size": "64"}), "hidden_size is '64'"),
        ("", "JSON"),
    ],
    ids=["cut", "list", "deep", "type", "empty"],
)
def test_a_command_says_it_in_one_line(tmp_path, capsys, text, words):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SystemExit) as end:
        run_main(lambda: train.main([CONFIG, "--model.path", str(tmp_path), "--run-dir", str(tmp_path / "run")]))
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.count("\n") == 1 and str(tmp_path / "config.json") in said and words in said


def test_the_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY | {"rope_scaling": "yarn"}))
    with pytest.raises(UserError, match=f"^{tmp_path}/config.json: rope_scaling is 'yarn'"):
        hf.load_config(tmp_path)
