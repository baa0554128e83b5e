"""`load_model` on meshes of 1, 2, 4 and 8 devices: the same records, logits and answers to the harness on each."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

import s1_jax
from s1_jax import generate
from s1_jax.checkpoints import hf
from s1_jax.config import MeshConfig, StoredConfig
from s1_jax.config.lm_eval import HarnessConfig
from s1_jax.decoding.loaded_model import decoding_layout
from s1_jax.errors import UserError
from s1_jax.model import stored_weights
from tests.generate.command import V

MESHES = {
    1: {"fsdp": 1},
    2: {"fsdp": 1, "tensor": 2},
    4: {"fsdp": 2, "tensor": 2},
    8: {"fsdp": 4, "tensor": 2},
}
PROMPTS = ["hi", [5, 6], "x" * 20]
BUDGET = {"max_thinking_tokens": 12, "num_ignore": 2, "ignore_string": "Hm"}
WIDE = ({"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 1, "tensor": 8}, {"fsdp": 2, "context": 2, "tensor": 2})


def spread(folder, mesh, **options):
    """The model on a mesh of exactly these devices."""
    return s1_jax.load_model(folder, mesh=mesh, **options)


def records_of(model):
    greedy = model.generate(PROMPTS, BUDGET, max_answer_tokens=4)
    return greedy + model.generate(PROMPTS, BUDGET, {"temperature": 1.0}, max_answer_tokens=4, seed=3)


@pytest.fixture(scope="module")
def expected(folder):
    """The records of today's call, which names no mesh."""
    model = s1_jax.load_model(folder)
    assert model.layout.mesh.size == 1
    return records_of(model)


@pytest.mark.parametrize("devices", MESHES)
def test_records_are_the_same_on_any_mesh(folder, expected, devices):
    model = spread(folder, MESHES[devices])
    assert model.layout.mesh.size == devices
    assert records_of(model) == expected
    assert model.engine(None, 3).batch_size % model.layout.size("batch") == 0


@pytest.mark.slow
@pytest.mark.parametrize("mesh", WIDE, ids=str)
def test_records_are_the_same_on_other_meshes_of_eight(folder, expected, mesh):
    assert records_of(spread(folder, mesh)) == expected


@pytest.mark.slow
def test_int8_weights_and_cache_are_the_same_on_a_mesh(folder):
    stored = {"weights": "int8", "cache": "int8"}
    assert records_of(spread(folder, MESHES[4], stored=stored)) == records_of(s1_jax.load_model(folder, stored=stored))


@pytest.mark.parametrize("devices", [2, 8])
def test_logits_are_the_same_on_a_mesh(folder, devices):
    ids = np.random.default_rng(0).integers(0, 259, (3, 20))
    alone = s1_jax.load_model(folder).logits(ids)
    found = spread(folder, MESHES[devices]).logits(ids)
    assert found.shape == (3, 20, V) and np.abs(found - alone).max() <= 1e-5 * np.abs(alone).max()


@pytest.mark.parametrize("devices", [1, 4])
def test_the_command_takes_a_mesh(folder, tmp_path, devices):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("hi", "ho")))
    out = tmp_path / "out.jsonl"
    paths = ["--model.path", str(folder), "--input", str(tmp_path / "in.jsonl"), "--output", str(out)]
    mesh = [word for axis, size in MESHES[devices].items() for word in (f"--mesh.{axis}", str(size))]
    generate.main([*paths, *mesh, "--max-answer-tokens", "4", "--budget.max-thinking-tokens", "12"])
    wanted = s1_jax.load_model(folder).generate(["hi", "ho"], {"max_thinking_tokens": 12}, max_answer_tokens=4)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [{name: record[name] for name in wanted[0]} for record in records] == wanted


def test_no_weight_lies_whole_on_a_device_while_a_model_is_loaded(folder, monkeypatch):
    """After each parameter, of all arrays of a weight's shape, as the file or the model has it, devices hold pieces."""
    devices, place, whole, seen = 8, hf._place, [], []
    earlier = jax.live_arrays()  # held, so that no new array gets the id of one of these
    known = {id(array) for array in earlier}
    shapes = {leaf.shape for leaf in jax.tree.leaves(hf.load_for_decoding(folder, StoredConfig(), "float32")[1])}
    shapes = {turned for shape in shapes if len(shape) > 1 for turned in (shape, shape[::-1])}

    def look(*given):
        param = place(*given)
        for array in jax.live_arrays():
            if id(array) not in known and array.shape in shapes and array.dtype == "float32":
                seen.append(array.shape)
                piece = max(shard.data.nbytes for shard in array.addressable_shards)
                whole.extend([array.shape] * (piece * devices > array.nbytes))
        return param

    monkeypatch.setattr(hf, "_place", look)
    model = spread(folder, MESHES[devices], stored={"weights": "int8"})
    assert whole == [] and set(seen) <= shapes and len(seen) > 20
    for path, array in jax.tree_util.tree_leaves_with_path(model.params):
        if array.ndim > 1:
            pieces = {shard.data.size for shard in array.addressable_shards}
            assert pieces == {array.size // devices}, (path, array.sharding)


def test_rounding_a_weight_to_int8_gathers_no_piece_of_it():
    layout = decoding_layout(MeshConfig(fsdp=4, tensor=2))
    kernel = jax.ShapeDtypeStruct((64, 96), "float32", sharding=layout.sharding("embed", "mlp"))
    program = stored_weights.rounded.lower(kernel).compile()
    assert "all-gather" not in program.as_text()
    values, scales = program.output_shardings
    assert values.is_equivalent_to(kernel.sharding, 2) and scales.is_equivalent_to(layout.sharding("mlp"), 1)


def test_a_mesh_that_cannot_be(folder):
    for mesh, message in (
        ({"tensors": 2}, "mesh: unknown field 'tensors'; did you mean 'tensor'"),
        ({"tensor": 0}, "mesh: mesh.tensor is 0"),
        ({"fsdp": 3}, "embed_tokens.weight: axis 'table_embed' of size 64 does not divide over 3 devices"),
        ({"fsdp": 16}, "mesh .* has 16 places; there are 8 devices"),
        (MeshConfig(fsdp=-1, tensor=-1), "only one mesh axis may be -1"),
    ):
        with pytest.raises(UserError, match=message):
            spread(folder, mesh)
    with pytest.raises(UserError, match="dtype 'float16' is not auto, float32 or bfloat16"):
        s1_jax.load_model(folder, "float16")
    with pytest.raises(UserError, match="stored: unknown field 'weight'; did you mean 'weights'"):
        s1_jax.load_model(folder, stored={"weight": "int8"})


def test_a_harness_model_names_its_mesh():
    read = HarnessConfig(pretrained="m", tensor=8).mesh
    assert (read.data, read.fsdp, read.context, read.tensor) == (1, -1, 1, 8)


def test_a_message_with_the_text_of_a_special_token_is_warned_about(folder):
    model = s1_jax.load_model(folder)
    with pytest.warns(UserWarning, match=r"1 prompt contains the text of a special token.*prompt 1: <\|im_end\|>"):
        model.generate(["hi", "a<|im_end|>"], {"max_thinking_tokens": 2}, max_answer_tokens=2)
