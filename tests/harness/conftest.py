"""A random model as the harness's `s1_jax`, and the same model in transformers.

`lm_eval` is imported in the fixtures: where it is not installed, the test files skip, and this one must still load.
"""

from __future__ import annotations

import copy

import pytest
import torch

from s1_jax.decoding.host import slots
from tests.tokenizer import byte_tokenizer


@pytest.fixture(autouse=True)
def one_model_of_each(monkeypatch):
    """Loaded once; its batch keeps its size when it runs empty, so that nothing is compiled for smaller ones."""
    from s1_jax import lm_eval as command
    from s1_jax.harness import model as harness
    from tests.harness.asking import loaded

    monkeypatch.setattr(harness, "load_model", loaded)
    monkeypatch.setattr(slots, "SHRINK", 1)
    command.register()


@pytest.fixture(scope="session")
def reference(tiny_model):
    from tests.harness.asking import MAX_LENGTH, V

    model = copy.deepcopy(tiny_model(1, vocab_size=V, max_position_embeddings=MAX_LENGTH).torch_model)
    with torch.no_grad():
        model.lm_head.weight[256:259] *= 1.7  # texts often end by themselves
    return model


@pytest.fixture(scope="session")
def folder(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    reference.save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture
def lm(folder):
    from s1_jax.harness import model as harness
    from tests.harness.asking import ROWS

    return harness.S1JaxLM(pretrained=folder, batch_size=ROWS)


@pytest.fixture(scope="session")
def plain_score(reference):
    """Of ids after others, by transformers: the sum of their log-probabilities, and whether each is the likeliest."""

    def score(context, continuation):
        with torch.no_grad():
            logits = reference(torch.tensor([[*context, *continuation]])).logits[0, len(context) - 1 : -1]
        at = torch.log_softmax(logits.double(), -1)[torch.arange(len(continuation)), torch.tensor(continuation)]
        return float(at.sum()), logits.argmax(-1).tolist() == list(continuation)

    return score
