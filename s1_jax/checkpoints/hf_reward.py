"""Reward models in Hugging Face layout, in and out: `hf` with another kind of head."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from s1_jax.checkpoints import hf
from s1_jax.checkpoints.folder import resolve
from s1_jax.config import ModelConfig, StoredConfig
from s1_jax.config.model_fields import SHOWN, Fields
from s1_jax.errors import UserError
from s1_jax.model.reward import REWARD_MODELS, Params, RewardConfig, abstract_params, param_axes
from s1_jax.runtime.json_input import read_object
from s1_jax.sharding import Layout


def load_config(path: str | Path) -> tuple[ModelConfig, RewardConfig]:
    """Read the config and the head of a reward model in a folder or on the hub.

    The head is that of the architecture in config.json. If this is not a known one, the names and shapes of the stored
    tensors decide. `step_separator` in config.json replaces the architecture's separator. Raises UserError if the
    reward model is not a known one, or if the separator is not a string.
    """
    folder = resolve(path)
    fields = Fields(read_object(folder / "config.json"), str(folder / "config.json"))
    config = ModelConfig.from_dict(fields.values, fields.source)
    named = fields.texts("architectures") or []
    known = [REWARD_MODELS[name] for name in named if name in REWARD_MODELS] or _by_tensors(folder, config)
    if not known:
        said = named[0][:SHOWN] if named else "not said"
        raise UserError(
            f"{folder} is no reward model that is known (its architecture: {said}); "
            f"known are {', '.join(REWARD_MODELS)}"
        )
    separator = fields.text("step_separator") if fields.given("step_separator") else None
    return config, dataclasses.replace(known[0], separator=separator or known[0].separator)


def load_params(
    path: str | Path, *, layout: Layout | None = None, **form: Any
) -> tuple[ModelConfig, RewardConfig, Params]:
    """Load the reward model in a folder or behind a hub id, with the options of `hf.load_params`.

    An output head that is stored in addition to the score head, as in Qwen2.5-Math's reward models, is not loaded.
    """
    folder = resolve(path)
    config, reward = load_config(folder)
    shapes, axes = abstract_params(config, reward), param_axes(config, reward)
    return config, reward, hf.load_tree(folder, config, shapes, axes, layout=layout, **form)


def load_for_scoring(
    path: str | Path, stored: StoredConfig, dtype: Any, layout: Layout | None = None
) -> tuple[ModelConfig, RewardConfig, Params]:
    """Load a reward model with separate layers and weights stored as `stored` says; `dtype` is the compute type."""
    return load_params(path, layout=layout, **hf.decoding_form(stored, dtype, layout))


def save_params(
    path: str | Path,
    config: ModelConfig,
    reward: RewardConfig,
    params: Params,
    *,
    dtype: Any = None,
    tokenizer_from: str | Path | None = None,
) -> None:
    """Write a reward model as `hf.save_params` writes a model; transformers itself reads one with a one-layer head."""
    hf.save_params(path, config, params, dtype=dtype, tokenizer_from=tokenizer_from, described=reward.to_dict())


def _by_tensors(folder: Path, config: ModelConfig) -> list[RewardConfig]:
    """Find the known reward model whose head has the names and shapes of the checkpoint's; the list has one or none."""

    def head(reward: RewardConfig) -> dict[str, tuple[int, ...]]:
        flat = flatten_dict({"score": abstract_params(config, reward)["score"]}, sep=".")
        return {hf.hf_names(key, config)[0]: hf.hf_shape(key, leaf.shape) for key, leaf in flat.items()}

    found = {tensor.name: tensor.shape for tensor in hf.stored_tensors(folder) if tensor.name.startswith("score.")}
    return [reward for reward in REWARD_MODELS.values() if head(reward) == found]
