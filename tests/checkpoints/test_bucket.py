"""Checkpoints in a bucket, where nothing is renamed and a folder is whole when its last file is there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.checkpoints import hf
from s1_jax.checkpoints.orbax import Checkpointer, restore_params
from s1_jax.config import MeshConfig
from s1_jax.errors import RunError, UserError
from s1_jax.model.transformer import param_axes
from s1_jax.runtime.storage import as_path
from s1_jax.sharding import TRAIN_RULES, Layout, assert_sharded, make_mesh
from tests.checkpoints.test_hf import SHAPES, SMALL_SHARD_BYTES, TINY_BASE
from tests.checkpoints.test_orbax import META, assert_equal, make_state, target

MODEL, STEPS = "gs://s1-test/model", "gs://s1-test/run/checkpoints"


def layout(**mesh):
    return Layout(make_mesh(MeshConfig(**mesh)), TRAIN_RULES)


class OfOneProcess:
    """A sharding over eight devices, of which two are this process's."""

    def __init__(self, *own):
        self.own = own

    def addressable_devices_indices_map(self, shape):
        return dict(enumerate(self.own))


def test_a_process_asks_for_the_rows_its_devices_hold():
    columns = slice(0, 4)
    assert hf._own_rows((16, 8), OfOneProcess((slice(4, 6), columns), (slice(6, 8), columns))) == (4, 8)
    assert hf._own_rows((16, 8), OfOneProcess((slice(None), columns), (slice(None), slice(4, 8)))) == (0, 16)


@pytest.mark.parametrize("sharded", [False, True])
def test_what_is_written_there_is_what_is_written_here(tiny_model, tmp_path, monkeypatch, bucket, sharded):
    tiny = tiny_model(**SHAPES)
    if sharded:
        monkeypatch.setattr(hf, "SHARD_BYTES", SMALL_SHARD_BYTES)
    for place in (tmp_path / "model", MODEL):
        hf.save_params(place, tiny.config, tiny.params, tokenizer_from=TINY_BASE)
    here = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert {name.removeprefix("model/"): bucket.read(name) for name in bucket.names("model/")} == here
    assert len(here) > 5 if sharded else "model.safetensors" in here
    config, params = hf.load_params(MODEL)
    assert config == tiny.config
    assert_equal(params, tiny.params)
    text = "Two hikers. <|im_start|>think 17"
    assert hf.load_tokenizer(MODEL).encode(text) == hf.load_tokenizer(TINY_BASE).encode(text)


def test_of_a_tensor_only_the_rows_that_are_asked_for_are_read(tiny_model, bucket):
    tiny = tiny_model(**SHAPES)
    hf.save_params(MODEL, tiny.config, tiny.params)
    before = bucket.served
    _, params = hf.load_params(MODEL, layout=layout(fsdp=4, tensor=2))
    whole = bucket.served - before
    assert_equal(params, tiny.params)
    assert_sharded(params, layout(fsdp=4, tensor=2).tree(param_axes(tiny.config), params))
    stored = hf.stored_tensors(as_path(MODEL))
    assert whole < 3 * sum(np.prod(tensor.shape) * 4 for tensor in stored), "headers are read ahead, no more"
    for tensor in stored:
        before = bucket.served
        rows = tensor.rows(1, tensor.shape[0] // 2)
        assert rows.shape == (tensor.shape[0] // 2 - 1, *tensor.shape[1:])
        assert bucket.served - before == rows.nbytes


def test_an_export_that_was_killed_is_no_model_and_is_written_again(tiny_model, bucket):
    tiny = tiny_model(**SHAPES)
    hf.save_params(MODEL, tiny.config, tiny.params)
    bucket.fault = lambda method, path: 403 if method == "POST" and "/upload/" in path else None
    with pytest.raises(OSError, match="Forbidden"):
        hf.save_params(MODEL, tiny.config, jax.tree.map(lambda leaf: leaf + 1, tiny.params))
    bucket.fault = lambda method, path: None
    with pytest.raises(UserError, match=r"no config.json in gs://s1-test/model; a model is a folder with"):
        hf.load_params(MODEL)
    bucket.put("model/model.safetensors", b"half")
    hf.save_params(MODEL, tiny.config, tiny.params)
    assert_equal(hf.load_params(MODEL)[1], tiny.params)


def test_a_folder_of_anything_else_is_not_written_over(tiny_model, bucket):
    tiny = tiny_model(**SHAPES)
    bucket.put("model/thesis.tex", b"x")
    with pytest.raises(UserError, match="gs://s1-test/model exists and is not a checkpoint"):
        hf.save_params(MODEL, tiny.config, tiny.params)
    assert bucket.names() == ["model/thesis.tex"]


def test_a_bucket_that_may_not_be_read_is_told_in_one_line(bucket):
    bucket.fault = lambda method, path: 403
    with pytest.raises(UserError, match="gs://s1-test/model: Forbidden") as raised:
        hf.load_config(MODEL)
    assert "\n" not in str(raised.value)


def test_training_state_comes_back_on_another_mesh_and_the_newest_are_kept(bucket):
    state = make_state(fsdp=4, tensor=2)
    checkpointer = Checkpointer(STEPS, keep=2)
    assert checkpointer.latest_step() is None
    for step in (2, 4, 6):
        checkpointer.save(step, state, META)
    checkpointer.wait()
    found, meta = checkpointer.restore(target(fsdp=8))
    checkpointer.close()
    assert meta == META and checkpointer.latest_step() == 6
    assert_equal(found, state)
    assert {name.split("/")[2] for name in bucket.names("run/")} == {"4", "6"}
    assert_equal(restore_params(STEPS)[0], state.params)


def test_a_step_that_a_kill_left_half_written_is_no_step(bucket):
    first, second = make_state(0, fsdp=8), make_state(1, fsdp=8)
    checkpointer = Checkpointer(STEPS, keep=2)
    checkpointer.save(3, first, {"examples_seen": 3})
    checkpointer.save(4, second, {"examples_seen": 4})
    checkpointer.close()
    for name in [name for name in bucket.names("run/checkpoints/4/") if name.endswith("commit_success.txt")]:
        del bucket.objects[name]
    assert_equal(restore_params(STEPS)[0], first.params)
    checkpointer = Checkpointer(STEPS, keep=2)
    assert checkpointer.latest_step() == 3
    assert_equal(checkpointer.restore(target(fsdp=8))[0], first)
    checkpointer.save(4, second, {"examples_seen": 4})
    checkpointer.wait()
    assert_equal(checkpointer.restore(target(fsdp=8))[0], second)
    checkpointer.close()


def test_a_damaged_step_is_named_and_set_aside(bucket):
    first, second = make_state(0, fsdp=8), make_state(1, fsdp=8)
    checkpointer = Checkpointer(STEPS, keep=2)
    checkpointer.save(3, first, {"examples_seen": 3})
    checkpointer.save(4, second, {"examples_seen": 4})
    checkpointer.wait()
    for name in bucket.names("run/checkpoints/4/state/d/"):
        bucket.put(name, bucket.read(name)[:-100])
    with pytest.warns(UserWarning, match=r"checkpoint gs://.*/4 is damaged .*; resuming from step 3"):
        found, _ = checkpointer.restore(target(fsdp=8))
    checkpointer.close()
    assert_equal(found, first)
    assert {name.split("/")[2] for name in bucket.names("run/")} == {"3", "damaged-4"}


def test_a_save_that_the_bucket_refuses_is_told_and_the_one_before_is_kept(bucket):
    state = {"params": {"w": jnp.arange(1000.0)}}
    checkpointer = Checkpointer(STEPS, keep=2)
    checkpointer.save(1, state, {})
    checkpointer.wait()
    bucket.fault = lambda method, path: 403 if "/upload/" in path else None
    with pytest.raises((RunError, OSError), match=r"(?i)forbidden|denied|403"):
        checkpointer.save(2, state, {})
        checkpointer.close()
    bucket.fault = lambda method, path: None
    assert_equal(restore_params(STEPS)[0], state["params"])
