"""Every config that is shipped: it loads, and those for TPU fit the slice that their table row names."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from runpy import run_path

import jax
import pytest
from jax.sharding import AbstractMesh

from s1_jax.chips import LANES
from s1_jax.config import EvaluateConfig, TrainConfig
from s1_jax.evaluation.settings import sweep_settings
from s1_jax.model.sizes import PUBLISHED
from s1_jax.model.transformer import abstract_params, param_axes
from s1_jax.planning.decode_estimate import sizes_of
from s1_jax.planning.decode_program import Types, cache_bytes, decode_params
from s1_jax.planning.topology import parse_topology
from s1_jax.runtime.cli import load_config
from s1_jax.sharding import DECODE_RULES, MESH_AXES, TRAIN_RULES, Layout
from s1_jax.training.checks import check_sizes

PROJECT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((PROJECT / "configs").glob("*.py"))
TABLES = run_path(str(PROJECT / "scripts" / "plan_table.py"))
PLANNED = {config: topology for config, topology, full in TABLES["ROWS"] if full is None}
SWEEPS = {config: topology for config, topology, _ in TABLES["SWEEPS"]}
BFLOAT16 = Types("bfloat16", "bfloat16", "bfloat16")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_loads_and_opens_with_its_command(path):
    load_config(path)
    assert f"configs/{path.name}" in path.read_text().split('"""')[1]


def test_every_tpu_config_stands_in_the_table_of_plans():
    assert {path.stem for path in CONFIGS if path.stem.startswith(("s1_", "qwen3_"))} == set(PLANNED)
    assert {path.stem for path in CONFIGS if path.stem.startswith("sweep_")} == set(SWEEPS)


@pytest.mark.parametrize("name", PLANNED)
def test_model_rows_and_mesh_fit_together(name):
    config = load_config(PROJECT / "configs" / f"{name}.py")
    assert isinstance(config, TrainConfig)
    model = PUBLISHED[config.model.path]
    sizes = dataclasses.asdict(config.mesh)
    layout = Layout(AbstractMesh(tuple(sizes[axis] for axis in MESH_AXES), MESH_AXES), TRAIN_RULES)  # type: ignore[arg-type]
    assert layout.mesh.size == math.prod(parse_topology(PLANNED[name]).shape)
    check_sizes(config, model, 0, layout)
    layout.tree(param_axes(model), abstract_params(model))  # every weight divides
    assert model.num_key_value_heads % layout.size("act_kv_heads") == 0
    assert all(length % (layout.size("length") * LANES) == 0 for length in config.data.capacities)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_keeps_no_weight_and_no_cache_twice(name):
    config = load_config(PROJECT / "configs" / f"{name}.py")
    assert isinstance(config, EvaluateConfig)
    assert len(sweep_settings(config)) == 11  # the reference's
    model = PUBLISHED[config.model.path]
    sizes = dataclasses.asdict(config.mesh)
    layout = Layout(AbstractMesh(tuple(sizes[axis] for axis in MESH_AXES), MESH_AXES), DECODE_RULES)  # type: ignore[arg-type]
    assert layout.mesh.size == math.prod(parse_topology(SWEEPS[name]).shape)
    held = sizes_of(config, model, layout)
    whole = model.num_hidden_layers * 2 * model.num_key_value_heads * model.head_dim * 2 * held.rows * held.capacity
    assert cache_bytes(model, BFLOAT16, layout, held) == whole / layout.mesh.size
    kernels = [leaf for leaf in jax.tree.leaves(decode_params(model, BFLOAT16, layout)) if leaf.ndim == 2]
    assert all(math.prod(leaf.sharding.shard_shape(leaf.shape)) * layout.mesh.size == leaf.size for leaf in kernels)
