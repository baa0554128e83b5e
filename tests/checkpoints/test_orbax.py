"""Training state on disk: the same bits on any mesh, and a usable checkpoint after whatever happened to the newest."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.checkpoints.orbax import Checkpointer, restore_params
from s1_jax.config import MeshConfig, ModelConfig, OptimConfig, RunError, UserError
from s1_jax.model.qwen2 import init_params
from s1_jax.sharding import TRAIN_RULES, Layout, assert_sharded, make_mesh
from s1_jax.training.optimizer import make_optimizer
from s1_jax.training.state import abstract_state, init_state

PROJECT = Path(__file__).resolve().parents[2]
MODEL = ModelConfig(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
META = {"examples_seen": 48, "config": {"model": {"path": "x"}, "none": None}}
KILLED_SAVES = 3  # how many times a save is killed, each at another moment

# Saves step 1, then a large step 2, again and again, until it is killed.
SAVER = """
import sys
import jax.numpy as jnp
from s1_jax.checkpoints.orbax import Checkpointer

folder = sys.argv[1]
checkpointer = Checkpointer(folder, keep=2)
for step in range((checkpointer.latest_step() or 0) + 1, 10**6):
    print(step, flush=True)
    checkpointer.save(step, {"params": {"w": jnp.full((8_000_000,), step, jnp.float32)}}, {"step": step})
    if step == 1:
        checkpointer.wait()
"""


def target(model=MODEL, **mesh):
    layout = Layout(make_mesh(MeshConfig(**mesh)), TRAIN_RULES)
    return abstract_state(model, make_optimizer(OptimConfig(), model, 10), layout)


def make_state(seed=0, **mesh):
    wanted = target(**mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, wanted.params)
    params = jax.device_put(init_params(MODEL, jax.random.key(seed)), shardings)
    state = init_state(params, make_optimizer(OptimConfig(), MODEL, 10), wanted)
    moments = jax.tree.map(lambda leaf: leaf + 0.25 if leaf.ndim else leaf + 7, state.opt_state)
    return replace(state, opt_state=moments, step=state.step + 7)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def under_way(folder):
    """Whether a step is there in part: under another name than its number."""
    return any(not name.isdigit() for name in names(folder))


@pytest.mark.parametrize(
    "mesh",
    [
        {"data": 2, "fsdp": 2, "tensor": 2},
        *(pytest.param(mesh, marks=pytest.mark.slow) for mesh in ({"fsdp": 8}, {"tensor": 2, "data": 4})),
    ],
    ids=str,
)
def test_state_comes_back_on_another_mesh(tmp_path, mesh):
    state = make_state(fsdp=4, tensor=2)
    checkpointer = Checkpointer(tmp_path / "checkpoints", keep=2)
    checkpointer.save(7, state, META)
    checkpointer.wait()
    wanted = target(**mesh)
    found, meta = checkpointer.restore(wanted)
    checkpointer.close()
    assert meta == META
    assert_equal(found, state)
    assert_sharded(found, jax.tree.map(lambda leaf: leaf.sharding, wanted))


def test_state_may_be_donated_while_it_is_saved(tmp_path):
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    state = {"params": {"w": jnp.arange(4_000_000, dtype=jnp.float32)}}
    expected = jax.tree.map(np.array, state)
    checkpointer = Checkpointer(tmp_path, keep=1)
    checkpointer.save(1, state, {})
    jax.block_until_ready(step(state))
    checkpointer.close()
    assert_equal(restore_params(tmp_path)[0], expected["params"])


def test_the_newest_are_kept(tmp_path):
    state = make_state(fsdp=8)
    checkpointer = Checkpointer(tmp_path, keep=2)
    assert checkpointer.latest_step() is None
    for step in (2, 4, 6):
        checkpointer.save(step, state, META)
    checkpointer.wait()
    assert checkpointer.latest_step() == 6
    checkpointer.close()
    assert names(tmp_path) == ["4", "6"]


def test_parameters_alone_in_the_types_saved(tmp_path):
    state = make_state(fsdp=4, tensor=2)
    state = replace(state, params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.params))
    checkpointer = Checkpointer(tmp_path, keep=2)
    checkpointer.save(3, state, META)
    checkpointer.close()
    params, meta = restore_params(tmp_path)
    assert_equal(params, state.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert meta == META


@pytest.mark.parametrize("change", [{"vocab_size": 128}, {"tie_word_embeddings": True}], ids=str)
def test_another_model_is_a_clear_error_and_nothing_is_moved(tmp_path, change):
    checkpointer = Checkpointer(tmp_path, keep=2)
    checkpointer.save(3, make_state(fsdp=8), META)
    checkpointer.wait()
    with pytest.raises(UserError, match=r"step 3 in .* is of another model or optimizer: .* first opt_state"):
        checkpointer.restore(target(replace(MODEL, **change), fsdp=8))
    checkpointer.close()
    assert names(tmp_path) == ["3"]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    for i in range(len(data) // 3, len(data) // 3 + 40):
        data[i] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut", "flipped", "removed"])
def test_damaged_newest_is_named_and_the_one_before_is_used(tmp_path, damage):
    first, second = make_state(0, fsdp=8), make_state(1, fsdp=8)
    checkpointer = Checkpointer(tmp_path, keep=2)
    checkpointer.save(3, first, {"examples_seen": 3})
    checkpointer.save(4, second, {"examples_seen": 4})
    checkpointer.wait()
    for path in (tmp_path / "4" / "state" / "d").iterdir():
        damage(path)
    with pytest.warns(UserWarning, match=r"checkpoint .*/4 is damaged .*; going on from step 3") as warned:
        found, meta = checkpointer.restore(target(fsdp=8))
    assert all("\n" not in str(warning.message) for warning in warned)
    assert_equal(found, first)
    assert meta == {"examples_seen": 3}
    assert checkpointer.latest_step() == 3 and names(tmp_path) == ["3", "damaged-4"]
    checkpointer.save(4, second, {"examples_seen": 4})  # the run reaches this step again
    checkpointer.wait()
    assert_equal(checkpointer.restore(target(fsdp=8))[0], second)
    checkpointer.close()


def test_nothing_that_can_be_read_is_a_clear_error(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=2)
    with pytest.raises(UserError, match="has no checkpoint that can be read"):
        checkpointer.restore(target(fsdp=8))
    with pytest.raises(UserError, match="has no checkpoint"):
        restore_params(tmp_path)
    checkpointer.save(3, make_state(fsdp=8), META)
    checkpointer.wait()
    for path in (tmp_path / "3" / "state" / "d").iterdir():
        cut(path)
    with pytest.raises(UserError, match=r"has no checkpoint that can be read \(step 3: "):
        checkpointer.restore(target(fsdp=8))
    with pytest.raises(UserError, match=r"3 cannot be read: "):
        restore_params(tmp_path)
    checkpointer.close()
    assert names(tmp_path) == ["3"]


def test_kill_during_a_save_leaves_the_one_before(tmp_path):
    """A process that does nothing but save is killed at several moments; what it left is whole, the next goes on."""
    env = dict(os.environ, PYTHONPATH=str(PROJECT), JAX_PLATFORMS="cpu")
    caught = 0
    for attempt in range(KILLED_SAVES):
        pipes = dict(stdout=subprocess.PIPE, text=True, env=env)
        with subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], **pipes) as saver:
            while int(saver.stdout.readline() or -1) < 2:
                assert saver.poll() is None, "the saver died by itself"
            while not under_way(tmp_path):
                assert saver.poll() is None, "the saver died by itself"
            time.sleep(0.02 * attempt)
            saver.send_signal(signal.SIGKILL)
        caught += under_way(tmp_path)
        params, meta = restore_params(tmp_path)
        np.testing.assert_array_equal(params["w"], np.full(8_000_000, meta["step"], np.float32))
    assert caught, "no kill fell into a save; the moments need choosing anew"


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    checkpointer = Checkpointer(tmp_path, keep=2)
    checkpointer.save(1, make_state(), META)
    checkpointer.wait()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(RunError, match=r"no room to save step 2: [\d,]+ bytes to write, 10 free in"):
        checkpointer.save(2, make_state(), META)
    monkeypatch.undo()
    monkeypatch.setattr("s1_jax.checkpoints.orbax.any_of", lambda flag: True)  # the disk of another process
    with pytest.raises(RunError, match=r"no room to save step 2: another process says so"):
        checkpointer.save(2, make_state(), META)
    monkeypatch.undo()
    checkpointer.close()
    assert names(tmp_path) == ["1"]
    assert_equal(Checkpointer(tmp_path, keep=2).restore(target())[0], make_state())


def test_a_save_that_failed_is_told_in_one_line(tmp_path, monkeypatch):
    checkpointer = Checkpointer(tmp_path, keep=2)

    def fails():
        raise ValueError("RESOURCE_EXHAUSTED: no space left [tensorstore_spec='...']\nmore")

    monkeypatch.setattr(checkpointer._manager, "wait_until_finished", fails)
    with pytest.raises(RunError, match=r"a save into .* failed: RESOURCE_EXHAUSTED: no space left$"):
        checkpointer.wait()
