"""A tiny random model in transformers, and its weights carried over by a table of our own, not by the code tested."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

from s1_jax.config import ModelConfig
from s1_jax.model.transformer import Params

# name in the tree of s1_jax -> (name in transformers, whether it is a matrix to transpose)
PER_LAYER = {
    "input_layernorm.weight": ("input_layernorm.weight", False),
    "self_attn.q_proj.kernel": ("self_attn.q_proj.weight", True),
    "self_attn.q_proj.bias": ("self_attn.q_proj.bias", False),
    "self_attn.k_proj.kernel": ("self_attn.k_proj.weight", True),
    "self_attn.k_proj.bias": ("self_attn.k_proj.bias", False),
    "self_attn.v_proj.kernel": ("self_attn.v_proj.weight", True),
    "self_attn.v_proj.bias": ("self_attn.v_proj.bias", False),
    "self_attn.q_norm.weight": ("self_attn.q_norm.weight", False),
    "self_attn.k_norm.weight": ("self_attn.k_norm.weight", False),
    "self_attn.o_proj.kernel": ("self_attn.o_proj.weight", True),
    "post_attention_layernorm.weight": ("post_attention_layernorm.weight", False),
    "mlp.gate_proj.kernel": ("mlp.gate_proj.weight", True),
    "mlp.up_proj.kernel": ("mlp.up_proj.weight", True),
    "mlp.down_proj.kernel": ("mlp.down_proj.weight", True),
}

TINY = dict(
    model_type="qwen2",
    vocab_size=97,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-6,
    rope_theta=1e4,
    tie_word_embeddings=False,
)
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
FAMILIES = {  # changes of TINY
    "qwen2": {},
    "qwen3": dict(model_type="qwen3", head_dim=24),
    "qwen3-tied": dict(model_type="qwen3", head_dim=8, tie_word_embeddings=True),
    "llama": dict(model_type="llama", rope_scaling=LLAMA3, rope_theta=5e5),
    "llama-tied": dict(model_type="llama", tie_word_embeddings=True),
}


@dataclass(frozen=True)
class TinyModel:
    """The same weights twice; `torch_model` is the reference, in float32 with eager attention."""

    torch_model: Any
    config: ModelConfig
    params: Params


def tiny_model(seed: int = 0, **overrides: Any) -> TinyModel:
    """A random model of `TINY`'s config changed by `overrides` (Hugging Face's keys); biases and norms random too."""
    return _build(seed, _Frozen(TINY | overrides))


class _Frozen(dict):
    """A dict whose text is its identity, so that the models can be cached."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(self))


@cache
def _build(seed: int, values: _Frozen) -> TinyModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = AutoConfig.for_model(**values)
        model = _randomised(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    return TinyModel(model, ModelConfig.from_dict(model.config.to_dict()), to_params(model))


def _randomised(model: Any) -> Any:
    for name, weight in model.named_parameters():
        scale = 0.2 if weight.ndim == 2 else 0.5
        weight.data = torch.randn_like(weight) * scale + ("norm" in name)
    return model.float().eval()


def to_params(model: Any, values: dict[str, torch.Tensor] | None = None) -> Params:
    """The weights of a transformers model, with or without an output head, as parameters of s1_jax, float32.

    `values` stand in for the weights: their gradients, say, by the weights' names.
    """
    tensors = model.state_dict() if values is None else values
    state = {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
    params: Params = {
        "embed_tokens": {"weight": jnp.asarray(state["model.embed_tokens.weight"])},
        "layers": {},
        "norm": {"weight": jnp.asarray(state["model.norm.weight"])},
    }
    for path, (name, transposed) in PER_LAYER.items():
        if f"model.layers.0.{name}" not in state:  # a bias or a norm that only other families have
            continue
        each = [state[f"model.layers.{i}.{name}"] for i in range(model.config.num_hidden_layers)]
        node = params["layers"]
        *parents, leaf = path.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = jnp.asarray(np.stack([weight.T if transposed else weight for weight in each]))
    if "lm_head.weight" in state and not model.config.tie_word_embeddings:
        params["lm_head"] = {"kernel": jnp.asarray(state["lm_head.weight"].T)}
    return params


class TwoLayerReward(torch.nn.Module):
    """Qwen2.5-Math's reward models as their tensors' names have them: transformers' backbone and plain layers."""

    def __init__(self, config: PretrainedConfig):
        super().__init__()
        D, self.config = config.hidden_size, config
        self.model = Qwen2Model(config)
        self.score = torch.nn.Sequential(torch.nn.Linear(D, D), torch.nn.ReLU(), torch.nn.Linear(D, config.num_labels))


# architecture -> (the model in torch, labels)
REWARDS: dict[str, tuple[Any, int]] = {
    "Qwen2ForRewardModel": (TwoLayerReward, 1),
    "Qwen2ForProcessRewardModel": (TwoLayerReward, 2),
    "Qwen2ForSequenceClassification": (Qwen2ForSequenceClassification, 1),
    "Qwen2ForTokenClassification": (Qwen2ForTokenClassification, 2),
}


@dataclass(frozen=True)
class TinyReward:
    """The same reward model twice, as `TinyModel`."""

    torch_model: Any
    config: ModelConfig
    params: Params

    def logits(self, token_ids: Any, attention_mask: Any = None) -> np.ndarray:
        """Of every token [B, T, labels], by torch."""
        given = [None if x is None else torch.tensor(np.asarray(x)) for x in (token_ids, attention_mask)]
        with torch.no_grad():
            hidden = self.torch_model.model(input_ids=given[0], attention_mask=given[1]).last_hidden_state
            return self.torch_model.score(hidden).numpy()

    def scores(self, token_ids: Any) -> np.ndarray:
        """Behind every token [T] of one text, by torch."""
        logits = torch.tensor(self.logits([token_ids])[0])
        return (logits[:, 0] if logits.shape[1] == 1 else logits.softmax(-1)[:, 1]).numpy()


def tiny_reward(architecture: str, seed: int = 0, **overrides: Any) -> TinyReward:
    """A random reward model of `TINY`'s config changed by `overrides`."""
    return _build_reward(architecture, seed, _Frozen(TINY | overrides))


@cache
def _build_reward(architecture: str, seed: int, values: _Frozen) -> TinyReward:
    kind, labels = REWARDS[architecture]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = AutoConfig.for_model(**values, num_labels=labels, attn_implementation="eager")
        model = _randomised(kind(config))
    params = to_params(model)
    score = params["score"] = {}
    for name, weight in model.score.state_dict().items():
        *layer, leaf = name.split(".")
        node = score.setdefault(layer[0], {}) if layer else score
        node["kernel" if leaf == "weight" else leaf] = jnp.asarray(weight.numpy().T)
    return TinyReward(model, ModelConfig.from_dict(config.to_dict()), params)
