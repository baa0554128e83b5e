"""transformers as what ours is measured against: the same model in PyTorch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from s1_jax.checkpoints import hf
from s1_jax.config import ModelConfig
from s1_jax.model.qwen2 import Params


def to_transformers(config: ModelConfig, params: Params) -> Any:
    """The same model in transformers, which takes no token for an end."""
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        hf.save_params(Path(folder) / "model", config, params)
        model = AutoModelForCausalLM.from_pretrained(Path(folder) / "model", dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # memory of its own, aligned, instead of the mapped file's
    model.generation_config.update(eos_token_id=None, pad_token_id=0)
    return model
