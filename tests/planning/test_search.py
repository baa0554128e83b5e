"""What a search tries, and how it ranks."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import pytest

from s1_jax.config import DataConfig, MeshConfig, TrainConfig
from s1_jax.model.sizes import PUBLISHED
from s1_jax.planning import search
from s1_jax.planning.search import groups_along, meshes, ranked, row_choices
from s1_jax.planning.train_estimate import RunSeconds
from s1_jax.sharding import TRAIN_RULES, Layout, make_mesh


def test_meshes_cut_the_heads_evenly():
    of_32b = list(meshes(PUBLISHED["Qwen/Qwen2.5-32B-Instruct"], 32))
    assert {mesh.tensor for mesh in of_32b} == {1, 2, 4, 8}
    assert all(mesh.fsdp * mesh.context * mesh.tensor == 32 for mesh in of_32b)
    assert MeshConfig(fsdp=8, context=1, tensor=4) in of_32b and MeshConfig(fsdp=8, context=4, tensor=1) in of_32b
    assert {mesh.tensor for mesh in meshes(PUBLISHED["Qwen/Qwen2.5-0.5B"], 8)} == {1, 2}


def test_rows_get_longer_as_they_get_fewer():
    config = TrainConfig(data=DataConfig(max_length=10240, row_lengths=(10240, 12288), micro_batch_rows=8))
    assert list(row_choices(config, fsdp=4, examples=16)) == [
        (4, (20480, 24576)),
        (8, (10240, 12288)),
        (16, (5120, 10240)),
    ]
    assert list(row_choices(config, fsdp=32, examples=16)) == []


def test_groups_along_mesh_axes():
    layout = Layout(make_mesh(MeshConfig(fsdp=2, context=2, tensor=2), jax.devices()), TRAIN_RULES)
    assert groups_along(layout, ("tensor",)) == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert groups_along(layout, ("fsdp", "context")) == ((0, 2, 4, 6), (1, 3, 5, 7))


def test_the_fastest_comes_first_and_what_does_not_fit_last():
    def result(name, minutes, gib=1.0):
        times = minutes and RunSeconds(overlap=0.0, scheduled=minutes, no_overlap=10 - minutes)
        plan = SimpleNamespace(run_seconds=times, memory=SimpleNamespace(total=gib))
        return SimpleNamespace(config=name, plan=plan)

    results = [result("no", None, 50), result("slow", 9.0), result("almost", None, 20), result("fast", 5.0)]
    assert [each.config for each in ranked(results)] == ["fast", "slow", "almost", "no"]


@pytest.mark.parametrize("limit,tried", [(1, 1), (3, 3), (4, 4), (5, 5), (9, 5)])
def test_the_fastest_choice_is_tried_without_async_collectives_too(limit, tried, monkeypatch):
    """Two meshes; full recompute is the first to fit, and the second mesh is the faster one."""
    found = [search.Candidate(TrainConfig(mesh=MeshConfig(fsdp=fsdp)), fsdp, 0.0) for fsdp in (4, 8)]
    monkeypatch.setattr(search, "candidates", lambda *arguments: found)
    monkeypatch.setattr(search, "REMAT_POLICIES", {"none": None, "mlp": None, "full": None})
    monkeypatch.setattr(search, "outcome", lambda plan: "")

    def make_plan(config, *rest, **options):
        fits = config.model.remat == "full"
        seconds = 100 / config.mesh.fsdp + (not config.train.async_collectives)
        times = RunSeconds(overlap=0.0, scheduled=seconds, no_overlap=0.0) if fits else None
        return SimpleNamespace(fits=fits, run_seconds=times, memory=SimpleNamespace(total=1.0))

    monkeypatch.setattr(search, "make_plan", make_plan)
    results = search.search(TrainConfig(), None, None, [None] * 8, limit)
    assert len(results) == tried
    plain = [result.config for result in results if not result.config.train.async_collectives]
    assert len(plain) == (limit > 3)
    if plain:
        best = results[0].config
        assert best.train.async_collectives
        assert (plain[0].mesh, plain[0].model) == (best.mesh, best.model)


@pytest.mark.parametrize("size,parameters", [("0.5B", 494_032_768), ("32B", 32_763_876_352)])
def test_the_models_known_by_name_have_their_published_sizes(size, parameters):
    from s1_jax.model.transformer import abstract_params

    for name in (f"Qwen/Qwen2.5-{size}", f"Qwen/Qwen2.5-{size}-Instruct"):
        assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(PUBLISHED[name]))) == parameters
