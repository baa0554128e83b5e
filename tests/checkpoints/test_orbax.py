"""Training state on disk: the same bits on any mesh, and a usable checkpoint after whatever happened to the newest."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.checkpoints.digest import digests, json_digest
from s1_jax.checkpoints.orbax import META as META_FILE
from s1_jax.checkpoints.orbax import Checkpointer, _without_late_reads, restore_params
from s1_jax.config import MeshConfig, ModelConfig, OptimConfig
from s1_jax.errors import RunError, UserError
from s1_jax.model.transformer import init_params
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
    with pytest.warns(UserWarning, match=r"checkpoint .*/4 is damaged .*; resuming from step 3") as warned:
        found, meta = checkpointer.restore(target(fsdp=8))
    assert all("\n" not in str(warning.message) for warning in warned)
    assert_equal(found, first)
    assert meta == {"examples_seen": 3}
    assert checkpointer.latest_step() == 3 and names(tmp_path) == ["3", "damaged-4"]
    checkpointer.save(4, second, {"examples_seen": 4})  # the run reaches this step again
    checkpointer.wait()
    assert_equal(checkpointer.restore(target(fsdp=8))[0], second)
    checkpointer.close()


def flip_bit(path, bit=None):
    """One bit, in the middle of the file where none is given."""
    data = bytearray(path.read_bytes())
    bit = 4 * len(data) if bit is None else bit
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def small_state(seed):
    """One array of each size of element, in single precision, half, whole numbers and bools."""
    w = jax.random.normal(jax.random.key(seed), (33, 5))
    params = {"w": w, "half": w.astype(jnp.bfloat16), "tokens": (100 * w).astype(jnp.int8), "positive": w > 0}
    return {"params": params, "step": jnp.int32(seed)}


def target_of(state):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A folder with steps 3 and 4 of `small_state`."""
    folder = tmp_path_factory.mktemp("two") / "steps"
    checkpointer = Checkpointer(folder, keep=2)
    for step in (3, 4):
        checkpointer.save(step, small_state(step), {"examples_seen": step})
    checkpointer.close()
    return folder


def damages(files):
    """(damage, file): a bit anywhere, of arrays, their shapes, the meta and the digests themselves; and whole files."""
    for i, file in enumerate(files):
        size = 8 * file.stat().st_size
        for bit in (5, size // 2, size - 3, (i + 1) * 1009 % size):
            yield f"bit {bit} of {file.name}", lambda path, bit=bit: flip_bit(path, bit), file
        yield f"half of {file.name}", cut, file
    for file in files:
        if file.parent.name == "meta" or "ocdbt" in file.name or file.parent.name == "d":
            yield f"no {file.name}", Path.unlink, file
    (meta,) = (file for file in files if file.name == META_FILE)
    yield "bad JSON", lambda path: path.write_text("{"), meta
    yield "no object", lambda path: path.write_text("[]"), meta


def test_no_damage_is_restored_in_silence(two_steps, tmp_path):
    """Wherever a bit is flipped: what comes back is the state that was saved, or the one before with a warning."""
    files = sorted(path for path in (two_steps / "4").rglob("*") if path.is_file())
    found = {True: 0, False: 0}
    for name, damage, file in damages(files):
        shutil.rmtree(tmp_path, ignore_errors=True)
        shutil.copytree(two_steps, tmp_path)
        damage(tmp_path / file.relative_to(two_steps))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            checkpointer = Checkpointer(tmp_path, keep=2)
            state, meta = checkpointer.restore(target_of(small_state(4)))
            checkpointer.close()
        step = meta["examples_seen"]
        assert_equal(state, small_state(step))
        assert step == 4 or any("4 is damaged" in str(warning.message) for warning in said), name
        found[step == 4] += 1
    assert found[True] and found[False] > 20  # Orbax keeps some files that it never reads


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "int32"])
def test_one_bit_changes_a_digest_and_the_mesh_does_not(dtype):
    x = np.asarray(jax.random.normal(jax.random.key(0), (8, 16)) * 50)
    x = x > 0 if dtype == "bool" else x.astype(jnp.dtype(dtype))
    sharding = jax.tree.leaves(target(fsdp=4, tensor=2).params)[0].sharding
    spread = jax.device_put(x, jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec("fsdp", "tensor")))
    assert digests({"a": {"x": spread}}) == (one := digests({"a": {"x": x}}))
    layout = Layout(sharding.mesh, TRAIN_RULES)
    with layout.use():  # as training has it
        assert digests({"a": {"x": spread}}) == one
    assert list(one) == ["a.x"] and one["a.x"][:2] == (dtype, (8, 16))
    swapped = x.copy()
    swapped[[0, 1]] = x[[1, 0]]
    others = [swapped, x.T.reshape(8, 16)]
    for place in (0, 77, 127):
        changed = x.copy()
        bits = changed.reshape(-1).view(np.uint8)
        bits[place * x.dtype.itemsize] ^= 1
        others.append(changed)
    assert len({one["a.x"][2], *(digests({"x": other})["x"][2] for other in others)}) == 6


def test_the_same_step_may_be_damaged_again_and_again(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=2)
    checkpointer.save(3, small_state(3), {"examples_seen": 3})
    (tmp_path / "damaged-4-2").mkdir()
    for _ in range(3):
        checkpointer.save(4, small_state(4), {"examples_seen": 4})
        checkpointer.wait()
        cut(tmp_path / "4" / "meta" / META_FILE)
        with pytest.warns(UserWarning, match=r"4 is damaged \(meta/checked: .*\); resuming from step 3"):
            checkpointer.restore(target_of(small_state(4)))
    checkpointer.close()
    assert names(tmp_path) == ["3", "damaged-4", "damaged-4-2", "damaged-4-3", "damaged-4-4"]


@pytest.mark.parametrize(
    ("look", "reason"), [(1, "another process cannot read it"), (2, "another process found it changed")]
)
def test_damage_that_one_process_sees_is_damage_for_all(two_steps, tmp_path, monkeypatch, look, reason):
    """Here step 4 can be read; another process says, at the first or at the second look, that it does not."""
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    asked = []
    monkeypatch.setattr("s1_jax.checkpoints.orbax.any_of", lambda flag: asked.append(flag) or len(asked) == look)
    checkpointer = Checkpointer(tmp_path, keep=2)
    with pytest.warns(UserWarning, match=rf"4 is damaged \({reason}\)"):
        assert checkpointer.restore(target_of(small_state(4)))[1] == {"examples_seen": 3}
    assert not any(asked)
    checkpointer.close()


def test_a_checkpoint_of_the_version_before_has_no_digests_and_is_restored(two_steps, tmp_path):
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    known = json.loads((tmp_path / "4" / "meta" / META_FILE).read_text())
    (tmp_path / "4" / "meta" / META_FILE).unlink()
    (tmp_path / "4" / "meta" / "metadata").write_text(json.dumps(known["meta"]))
    assert_equal(restore_params(tmp_path)[0], small_state(4)["params"])
    checkpointer = Checkpointer(tmp_path, keep=2)
    state, meta = checkpointer.restore(target_of(small_state(4)))
    assert_equal(state, small_state(4))
    assert meta == {"examples_seen": 4}
    (tmp_path / "4" / "meta" / "metadata").write_text("[]")
    with pytest.warns(UserWarning, match="4 is damaged"):
        assert checkpointer.restore(target_of(small_state(4)))[1] == {"examples_seen": 3}
    checkpointer.close()


def test_parameters_that_are_not_those_saved_are_not_exported(two_steps, tmp_path):
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    meta = tmp_path / "4" / "meta" / META_FILE
    known = json.loads(meta.read_text())
    known["arrays"]["params.w"][2] ^= 1
    known["digest"] = json_digest([known["meta"], known["arrays"]])
    meta.write_text(json.dumps(known))
    (tmp_path / "5").write_text("no step")
    with pytest.raises(UserError, match=r"4 cannot be read: params\.w is not what was saved$"):
        restore_params(tmp_path)


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


def test_reads_that_end_after_one_has_failed_print_nothing():
    said = []
    late = SimpleNamespace(exc_value=RuntimeError("Event loop is closed"))
    other = SimpleNamespace(exc_value=RuntimeError("something else"))
    for failed in (late, other):
        _without_late_reads(said.append)(failed)
    assert said == [other]
