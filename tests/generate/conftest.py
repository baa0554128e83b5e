"""A random model whose thinking often ends by itself, in a folder and loaded, and the command run on rows."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from s1_jax import generate
from tests.generate.command import V, arguments, loaded, output
from tests.tokenizer import byte_tokenizer


@pytest.fixture(scope="session")
def reference(tiny_model):
    """A random transformers model whose thinking often ends by itself."""
    model = copy.deepcopy(tiny_model(1, vocab_size=V, max_position_embeddings=128).torch_model)
    with torch.no_grad():
        model.lm_head.weight[256:259] *= 1.7
    return model


@pytest.fixture(scope="session")
def folder(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    reference.save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def model(folder):
    return loaded(str(folder), "float32")


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """`run(rows, *flags)`: the command on these input rows; gives the output rows."""
    monkeypatch.setattr(generate, "load_model", loaded)

    def run(rows, *flags):
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        generate.main(arguments(folder, tmp_path, *flags))
        return output(tmp_path)

    return run
