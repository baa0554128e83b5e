"""Reward models: in place of the output head, one that scores a text or each of its steps.

Parameters are those of `transformer` without an output head, and beside them `score`, named as in Hugging Face; a
weight is [in, out]. Two heads are known: one layer (transformers' Qwen2ForSequenceClassification and
...ForTokenClassification), and two with a ReLU between them (Qwen2.5-Math's reward models, arXiv 2409.12122 and
2501.07301). The head is computed in float32. Letters: B batch, T length, P places of a row, D hidden_size, Y labels.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from s1_jax.config import ModelConfig
from s1_jax.model import cached, transformer
from s1_jax.model.kv_cache import KVCache
from s1_jax.model.sharded_vectors import along_last
from s1_jax.model.transformer import Params


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """A reward model's head, and where its scores stand in a text."""

    architecture: str  # Hugging Face's name
    kind: Literal["outcome", "process"]  # a score at the last token; or one a step, at the separator that ends it
    labels: Literal[1, 2]  # Y: the score itself; or wrong and right, where the score is the probability of right
    hidden_layer: bool  # D to D with a ReLU, before the last layer
    bias: bool  # of the last layer; the hidden one has a bias always
    separator: str | None = None  # of a process model: what ends a step, a token or several

    def to_dict(self) -> dict[str, Any]:
        """Return what `config.json` has besides the fields of `ModelConfig`; `step_separator` is a key of ours."""
        labels = {"id2label": {str(label): f"LABEL_{label}" for label in range(self.labels)}}
        steps = {"step_separator": self.separator} if self.kind == "process" else {}
        return {"architectures": [self.architecture], **labels, **steps}


REWARD_MODELS: dict[str, RewardConfig] = {
    known.architecture: known
    for known in (
        # Qwen2.5-Math-RM-72B
        RewardConfig("Qwen2ForRewardModel", "outcome", labels=1, hidden_layer=True, bias=True),
        # Qwen2.5-Math-PRM-7B and -72B, Qwen2.5-Math-7B-PRM800K
        RewardConfig("Qwen2ForProcessRewardModel", "process", 2, hidden_layer=True, bias=True, separator="<extra_0>"),
        # one logit, as trl's RewardTrainer makes them
        RewardConfig("Qwen2ForSequenceClassification", "outcome", labels=1, hidden_layer=False, bias=False),
        # wrong or right, as trl's PRMTrainer makes them, whose separator is a newline unless told otherwise
        RewardConfig("Qwen2ForTokenClassification", "process", 2, hidden_layer=False, bias=True, separator="\n"),
    )
}


def init_params(config: ModelConfig, reward: RewardConfig, key: jax.Array, dtype: jnp.dtype = jnp.float32) -> Params:
    """Make random parameters, as `transformer.init_params` does."""
    body_key, score_key = jax.random.split(key)
    score = init_score(config, reward, score_key, dtype)
    return transformer.init_params(_headless(config), body_key, dtype) | {"score": score}


def init_score(config: ModelConfig, reward: RewardConfig, key: jax.Array, dtype: jnp.dtype = jnp.float32) -> Params:
    """Make a random head alone, to be put under `score` beside a trained backbone: weights normal, biases 0."""

    def linear(key: jax.Array, size_out: int, bias: bool) -> Params:
        kernel = config.initializer_range * jax.random.normal(key, (config.hidden_size, size_out), dtype)
        return {"kernel": kernel} | ({"bias": jnp.zeros((size_out,), dtype)} if bias else {})

    first_key, last_key = jax.random.split(key)
    last = linear(last_key, reward.labels, reward.bias)
    return {"0": linear(first_key, config.hidden_size, True), "2": last} if reward.hidden_layer else last


def abstract_params(config: ModelConfig, reward: RewardConfig, dtype: jnp.dtype = jnp.float32) -> Params:
    """Return the tree of `init_params` as jax.ShapeDtypeStruct, without making an array."""
    return jax.eval_shape(lambda: init_params(config, reward, jax.random.key(0), dtype))


def param_axes(config: ModelConfig, reward: RewardConfig) -> Params:
    """Return the logical axes of every parameter, in the tree of `init_params`."""

    def linear(axis_in: str, axis_out: str | None, bias: bool) -> Params:
        return {"kernel": (axis_in, axis_out)} | ({"bias": (axis_out,)} if bias else {})

    last = linear("mlp" if reward.hidden_layer else "embed", None, reward.bias)
    score = {"0": linear("embed", "mlp", True), "2": last} if reward.hidden_layer else last
    return transformer.param_axes(_headless(config)) | {"score": score}


def backbone(config: ModelConfig, params: Params) -> tuple[ModelConfig, Params]:
    """Return config and parameters without the head, for `transformer.hidden_states` and `cached.hidden_states`."""
    return _headless(config), {name: value for name, value in params.items() if name != "score"}


def _headless(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, tie_word_embeddings=True)  # what is tied has no output head of its own


def logits(params: Params, hidden: jax.Array) -> jax.Array:
    """Compute logits [..., Y] float32 from hidden states [..., D]."""
    x, score = hidden.astype(jnp.float32), params["score"]
    if "0" in score:
        x, score = jax.nn.relu(_linear(score["0"], x)), score["2"]
    return _linear(score, x)


def _linear(linear: Params, x: jax.Array) -> jax.Array:
    y = x @ linear["kernel"].astype(x.dtype)
    return y + along_last(linear["bias"], y) if "bias" in linear else y


def scores(logits: jax.Array) -> jax.Array:
    """Turn logits [..., Y] into scores [...]: with one label any number, with two a probability."""
    return logits[..., 0] if logits.shape[-1] == 1 else jax.nn.softmax(logits, axis=-1)[..., 1]


def logits_at(
    config: ModelConfig,
    params: Params,
    token_ids: jax.Array,
    lengths: jax.Array,
    places: jax.Array,
    *,
    compute_dtype: jnp.dtype = jnp.float32,
) -> jax.Array:
    """Logits [B, P, Y] float32 at `places` [B, P] of right-padded rows [B, T] of `lengths` [B].

    An outcome's place is `lengths - 1`, those of steps are where the separators stand. `scores` makes scores of them.
    """
    positions = jnp.broadcast_to(jnp.arange(token_ids.shape[1]), token_ids.shape)
    real = (positions < lengths[:, None]).astype(jnp.int32)
    body = backbone(config, params)
    hidden = transformer.hidden_states(*body, token_ids, positions, real, compute_dtype=compute_dtype)
    return logits(params, jnp.take_along_axis(hidden, places[:, :, None], axis=1))


def cached_scores(
    config: ModelConfig,
    params: Params,
    token_ids: jax.Array,
    positions: jax.Array,
    cache: KVCache,
    *,
    compute_dtype: jnp.dtype = jnp.float32,
) -> tuple[jax.Array, KVCache]:
    """Scores [B, T] float32 behind tokens [B, T] at `positions` [B, T], and the cache with them written.

    Parameters and positions are as `cached.hidden_states` takes them.
    """
    body = backbone(config, params)
    hidden, cache = cached.hidden_states(*body, token_ids, positions, cache, compute_dtype=compute_dtype)
    return scores(logits(params, hidden)), cache
