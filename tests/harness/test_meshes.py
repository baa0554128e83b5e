"""The harness's answers on a mesh of devices are those on one."""

from __future__ import annotations

import pytest

pytest.importorskip("lm_eval", reason="needs lm_eval: pip install 's1_jax[lm-eval]'")

import s1_jax
from s1_jax.harness import model as harness
from tests.harness.asking import ROWS, assert_close, generated, requests

MESHES = [{"fsdp": 2, "tensor": 2}, {"fsdp": 1, "tensor": 2}, {"fsdp": 4, "tensor": 2}]


@pytest.mark.parametrize("mesh", [MESHES[0], *(pytest.param(m, marks=pytest.mark.slow) for m in MESHES[1:])], ids=str)
def test_answers_are_the_same_on_any_mesh(lm, folder, mesh, monkeypatch):
    monkeypatch.setattr(harness, "load_model", s1_jax.load_model)
    spread = harness.S1JaxLM.create_from_arg_obj({"pretrained": folder, "batch_size": ROWS, **mesh})
    assert spread.model.layout.mesh.size == mesh["fsdp"] * mesh["tensor"]
    asked = [
        ("1+1=", {"max_gen_toks": 6, "max_tokens_thinking": 9, "thinking_n_ignore": 1}),
        ("x", {"max_gen_toks": 6}),
    ]
    assert generated(spread, *asked) == generated(lm, *asked)
    pairs = requests("loglikelihood", ("One and", " one"), ("", "two"), ("x" * 80, "yz"))
    found = [model.loglikelihood(pairs, disable_tqdm=True) for model in (spread, lm)]
    assert_close(*found)
