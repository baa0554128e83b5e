"""The planned decoding loop is the one that runs, no weight travels in it, and what it must move at least."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from s1_jax.config import EvaluateConfig, MeshConfig, ModelConfig, ModelSource, StoredConfig, TaskConfig
from s1_jax.decoding.device.programs import Program, decode_slots
from s1_jax.errors import UserError
from s1_jax.evaluation import settings
from s1_jax.evaluation.decode import decode
from s1_jax.planning.counts import count
from s1_jax.planning.decode_estimate import Step, sizes_of, weights_read
from s1_jax.planning.decode_program import Sizes, Sweep, Types, cache_bytes, decode_params
from s1_jax.planning.hlo import parse
from s1_jax.planning.roofline import Seconds
from s1_jax.planning.schedule import Timing
from s1_jax.planning.train_program import local_bytes
from s1_jax.sharding import DECODE_RULES, Layout, make_mesh
from s1_jax.tasks import load_task
from tests.tokenizer import byte_tokenizer

ROWS, LENGTH, ANSWER = 8, 128, 4
FLOAT32 = Types("float32", "float32", "float32")
MODEL = ModelConfig(512, 128, 256, 2, 4, 2)


class Stop(Exception):
    pass


def layout_of(**sizes):
    return Layout(make_mesh(MeshConfig(**sizes)), DECODE_RULES)


def test_the_planned_loop_is_the_one_evaluate_runs(tiny_model, tmp_path, monkeypatch):
    """`evaluation.decode` itself, up to its first step: what it would compile is, word for word, what is planned."""
    tiny = tiny_model(vocab_size=272, hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    tiny.torch_model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    config = EvaluateConfig(
        run_dir=str(tmp_path),
        model=ModelSource(path=str(tmp_path / "model"), dtype="float32"),
        task=TaskConfig(limit=ROWS),
        max_answer_tokens=ANSWER,
        max_model_len=LENGTH,
        batch_size=ROWS,
        mesh=MeshConfig(data=2, fsdp=2, tensor=2),
        stored=StoredConfig("float32", "float32"),
    )
    seen = {}
    call = Program.__call__

    def stopping(self, *arguments):
        if getattr(self.jitted.__wrapped__, "func", None) is decode_slots:
            seen["text"], seen["state"] = self.lower(*arguments).as_text(), arguments[0]
            seen["suffix_tokens"] = self._bound[1].suffixes.shape[1]
            raise Stop
        return call(self, *arguments)

    monkeypatch.setattr(Program, "__call__", stopping)
    task = load_task(config.task)
    planned_records = settings.plan_records(config, task, settings.sweep_settings(config), byte_tokenizer())
    with pytest.raises(Stop):
        decode(config, tmp_path, tmp_path / "model", task, planned_records)
    assert seen["state"].cache[0].capacity == LENGTH  # as of long rows
    layout = layout_of(data=2, fsdp=2, tensor=2)
    sizes = sizes_of(config, tiny.config, layout)
    assert sizes == Sizes(ROWS, LENGTH, ANSWER)
    planned = Sweep(tiny.config, FLOAT32, layout, sizes, seen["suffix_tokens"])
    assert planned.decode().as_text() == seen["text"]


@pytest.fixture(scope="module")
def compiled():
    """A step on 2 x 4 simulated devices, where rows and heads are both cut."""
    layout = layout_of(fsdp=2, tensor=2, context=2)
    sweep = Sweep(MODEL, FLOAT32, layout, Sizes(ROWS, LENGTH, ANSWER))
    return sweep, layout, sweep.decode().compile()


def test_no_weight_travels(compiled):
    sweep, _, program = compiled
    kernels = [leaf for leaf in jax.tree.leaves(sweep.params) if leaf.ndim == 2]
    assert all(leaf.sharding.shard_shape(leaf.shape) != leaf.shape for leaf in kernels)
    module = parse(program.as_text())
    sent = count(module, 1).collectives
    least = min(leaf.size * leaf.dtype.itemsize for leaf in kernels)
    assert sent and max(each.bytes for each in sent) < least


def test_a_step_gives_its_state_where_it_took_it(compiled):
    sweep, _, program = compiled
    for taken, given in zip(jax.tree.leaves(sweep.state), jax.tree.leaves(program.output_shardings), strict=True):
        assert given.is_equivalent_to(taken.sharding, taken.ndim)


def test_the_least_a_step_moves(compiled):
    """By hand, of eight chips one: weights but the embedding, keys and values of all rows; biases over tensor alone."""
    D, F, V, L, N, K, H = 128, 256, 512, 2, 4, 2, 32
    kernels = L * (2 * D * N * H + 2 * D * K * H + 3 * D * F) + D * V
    biases, norms = L * (N + 2 * K) * H, (2 * L + 1) * D
    weights = 4 * (kernels / 8 + biases / 2 + norms)
    cache = 4 * L * 2 * K * H * LENGTH * ROWS / 8
    sweep, layout, _ = compiled
    assert weights_read(sweep.params) == weights
    assert local_bytes(sweep.state.cache) == cache == cache_bytes(MODEL, FLOAT32, layout, Sizes(ROWS, LENGTH, 0))
    tied = dataclasses.replace(MODEL, tie_word_embeddings=True)
    assert weights_read(decode_params(tied, FLOAT32, layout)) == weights  # the table is the head
    timings = {1.0: Timing(0.75 * (weights + cache))}
    dense = Step(weights, cache, 1.5 * (weights + cache), False, (), Seconds(0.0, 0.0, 0.0), 2.0, timings)
    skipping = dataclasses.replace(dense, skips=True)
    assert dense.least(1.0) == weights + cache and dense.least(0.5) == weights + cache / 2
    assert dense.moved(0.5) == skipping.moved(1.0) == 1.5 * (weights + cache)
    assert skipping.moved(0.5) == 1.5 * (weights + cache) - cache / 2
    assert dense.roofline_share(1.0) == pytest.approx(1 / 1.5)


def config_of(**options):
    return EvaluateConfig(model=ModelSource(dtype="bfloat16"), max_model_len=LENGTH, **options)


def test_rows_must_divide_over_the_mesh():
    layout = layout_of(fsdp=4, tensor=2)
    with pytest.raises(UserError, match="batch_size 6 must be a multiple of 4, the mesh's data x fsdp x context"):
        sizes_of(config_of(batch_size=6), MODEL, layout)
