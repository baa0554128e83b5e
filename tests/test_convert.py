"""`python -m s1_jax.convert`, in both directions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.checkpoints import hf
from s1_jax.checkpoints.orbax import Checkpointer
from s1_jax.convert import main
from s1_jax.errors import UserError

PROJECT = Path(__file__).resolve().parents[1]
TINY_BASE = PROJECT / "s1_jax" / "assets" / "tiny_base"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def source(tiny_model, tmp_path):
    """A bfloat16 model in Hugging Face layout, with a tokenizer."""
    tiny = tiny_model()
    hf.save_params(tmp_path / "source", tiny.config, tiny.params, dtype=jnp.bfloat16, tokenizer_from=TINY_BASE)
    return tmp_path / "source"


def convert(source, target, *more):
    main(["--source", str(source), "--target", str(target), *more])


def assert_same_model(folder, expected):
    config, params = hf.load_params(folder)
    expected_config, expected_params = hf.load_params(expected)
    assert config == expected_config
    jax.tree.map(np.testing.assert_array_equal, params, expected_params)
    for name in TOKENIZER:
        assert (folder / name).read_bytes() == (expected / name).read_bytes()


def run_of(source, run_dir, steps=(2, 4)):
    """What a training run that started from `source` leaves; the weights of its last step are those of `source`."""
    _, params = hf.load_params(source)
    checkpointer = Checkpointer(run_dir / "checkpoints", keep=2)
    for step in steps:
        weights = params if step == steps[-1] else jax.tree.map(jnp.zeros_like, params)
        state = {"step": jnp.int32(step), "params": weights, "opt_state": ({"mu": params}, {"count": jnp.int32(step)})}
        checkpointer.save(step, state, {"examples_seen": step, "config": {"model": {"path": str(source)}}})
    checkpointer.close()
    (run_dir / "config.json").write_text(json.dumps({"model": {"path": str(source)}}))


def test_there_and_back_is_byte_equal(source, tmp_path, capsys):
    convert(source, tmp_path / "orbax")
    assert "Orbax layout" in capsys.readouterr().out
    convert(tmp_path / "orbax", tmp_path / "back")
    assert "Hugging Face layout" in capsys.readouterr().out
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert_same_model(tmp_path / "back", source)


@pytest.mark.parametrize("inner", ["", "checkpoints"])
def test_newest_step_of_a_run(source, tmp_path, inner):
    run_of(source, tmp_path / "run")
    convert(tmp_path / "run" / inner, tmp_path / "out")
    assert_same_model(tmp_path / "out", source)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["2", "4"]


@pytest.mark.parametrize("from_orbax", [False, True])
def test_dtype_is_cast(source, tmp_path, from_orbax):
    if from_orbax:
        convert(source, tmp_path / "orbax")
        convert(tmp_path / "orbax", tmp_path / "out", "--dtype", "float32")
    else:
        convert(source, tmp_path / "orbax", "--dtype", "float32")
        convert(tmp_path / "orbax", tmp_path / "out")
    _, params = hf.load_params(tmp_path / "out")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    jax.tree.map(np.testing.assert_array_equal, params, hf.load_params(source, dtype=jnp.float32)[1])


def test_existing_target_is_refused(source, tmp_path):
    with pytest.raises(UserError, match="exists; name a folder that does not"):
        convert(source, tmp_path)


def test_source_that_is_neither(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"config.json is missing"):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UserError, match="no folder"):
        convert(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_run_whose_first_model_is_gone(source, tmp_path):
    run_of(source, tmp_path / "run")
    source.rename(tmp_path / "moved")
    with pytest.raises(
        UserError, match=r"this run's config and tokenizer are those of its model.path, .*source: no folder"
    ):
        convert(tmp_path / "run", tmp_path / "out")


def test_steps_that_name_no_model(source, tmp_path):
    convert(source, tmp_path / "orbax")
    (tmp_path / "orbax" / "config.json").unlink()
    with pytest.raises(UserError, match="has no config.json, and its steps do not say which model they began from"):
        convert(tmp_path / "orbax", tmp_path / "out")


def test_run_cut_off_by_a_damaged_step_names_it(source, tmp_path):
    run_of(source, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / "4" / "state" / "d").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"checkpoints/4 cannot be read: "):
        convert(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "Convert a model between the layouts of Hugging Face and Orbax"),
        (["--source", "none", "--target", "out"], 2, "error: no folder none; a model is a folder with"),
        (["--source", "none", "--targt", "out"], 2, "error: unknown option --targt; did you mean --target?"),
    ],
    ids=["help", "no source", "unknown option"],
)
def test_command(tmp_path, arguments, code, said):
    command = [sys.executable, "-m", "s1_jax.convert", *arguments]
    env = dict(os.environ, PYTHONPATH=str(PROJECT))
    run = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == code
    assert said in (run.stdout if code == 0 else run.stderr)
    assert "Traceback" not in run.stderr and (code == 0 or run.stderr.count("\n") == 1)
