"""The model of byte_model.py, an engine on it, and what the plain twins need."""

from __future__ import annotations

import copy

import pytest
import torch

from s1_jax.config import S1, ModelConfig
from s1_jax.decoding.engine import Engine
from s1_jax.model.transformer import unstack
from tests.decoding.byte_model import MAX_MODEL_LEN, TOKENIZER, V, scores_of, words_of
from tests.reference import FAMILIES, to_params


@pytest.fixture(scope="session")
def model(tiny_model, request):
    """A random model that likes to end: its head is larger at the end tokens; five ids are unknown to the tokenizer.

    A test of another family than Qwen2 names it as a parameter of this fixture.
    """
    family = FAMILIES[getattr(request, "param", "qwen2")]
    reference = copy.deepcopy(tiny_model(1, vocab_size=V, max_position_embeddings=256, **family).torch_model)
    with torch.no_grad():
        reference.lm_head.weight[256:259] *= 1.7
    return reference, ModelConfig.from_dict(reference.config.to_dict()), to_params(reference)


@pytest.fixture(scope="session")
def engine(model):
    _, config, params = model
    return Engine(config, unstack(params), TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=16)


@pytest.fixture(scope="session")
def scores(model):
    return scores_of(model[0])


@pytest.fixture(scope="session")
def words():
    return words_of(S1)
