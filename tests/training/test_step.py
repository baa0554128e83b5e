"""The step against a plain PyTorch loop, against itself on other meshes, and its placement."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from s1_jax.config import MeshConfig, OptimConfig
from s1_jax.model import rings
from s1_jax.model.transformer import abstract_params, init_params, logits, param_axes
from s1_jax.sharding import TRAIN_RULES, Layout, assert_sharded, make_mesh, place_rows
from s1_jax.training import loss_on_cpu, losses
from s1_jax.training.optimizer import decayed, learning_rate, make_optimizer
from s1_jax.training.state import abstract_state, init_state
from s1_jax.training.step import compile_loss, compile_step, loss_and_grads, train_step
from tests.reference import FAMILIES

LOSS_TOLERANCE = 1e-4  # relative, per step: the bar of the parity with PyTorch
STEPS = 50
MESH_TOLERANCE = 2e-5  # of the largest value: the order of float32 sums differs between meshes
GRAD_TOLERANCE = 1e-5  # of the largest gradient: chunked and whole sums differ in order only


@pytest.fixture
def twin(tiny_model, request):
    """(transformers model, config, the same weights as our parameters); every size divides over 8 devices."""
    family = FAMILIES[getattr(request, "param", "qwen2")]
    tiny = tiny_model(vocab_size=96, hidden_size=32, intermediate_size=64, **family)
    return deepcopy(tiny.torch_model), tiny.config, tiny.params


def packed_batch(seed: int, vocab: int, micro: int, rows: int, length: int) -> dict[str, np.ndarray]:
    """Random documents in rows [micro, rows, length], each weighing the same; the tail of each row is padding."""
    rng = np.random.default_rng(seed)
    shape = (micro, rows, length)
    batch = {key: np.zeros(shape, np.int32) for key in ("token_ids", "positions", "segment_ids", "targets")}
    batch["weights"] = np.zeros(shape, np.float32)
    documents = 0
    for m, row in np.ndindex(micro, rows):
        start, segment = 0, 1
        while start + 6 < length:
            size = int(rng.integers(5, 12))
            end = min(start + size, length)
            ids = rng.integers(0, vocab, end - start)
            here = (m, row, slice(start, end))
            batch["token_ids"][here] = ids
            batch["positions"][here] = np.arange(end - start)
            batch["segment_ids"][here] = segment
            batch["targets"][m, row, start : end - 1] = ids[1:]
            batch["weights"][m, row, start + 1 : end - 1] = 1.0 / (end - start - 2)
            start, segment, documents = end, segment + 1, documents + 1
    batch["weights"] /= documents
    return batch


def unpacked(batch: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """The documents of a batch, one a row, padded at the right: ids and weights [documents, longest]."""
    ids, weights = [], []
    for m, row in np.ndindex(*batch["weights"].shape[:2]):
        for segment in range(1, batch["segment_ids"][m, row].max() + 1):
            where = batch["segment_ids"][m, row] == segment
            ids.append(torch.tensor(batch["token_ids"][m, row][where]).long())
            weights.append(torch.tensor(batch["weights"][m, row][where]))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(ids, batch_first=True), pad(weights, batch_first=True)


def layout_of(fsdp: int, tensor: int, context: int = 1, data: int = 1) -> Layout:
    devices = jax.devices()[: fsdp * tensor * context * data]
    mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp, context=context, tensor=tensor), devices)
    return Layout(mesh, TRAIN_RULES)


def assert_same(got, expected):
    """Two (loss, gradients) agree but for the order of their sums."""
    assert float(got[0]) == pytest.approx(float(expected[0]), rel=GRAD_TOLERANCE)
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(expected[1]))
    for a, b in zip(jax.tree.leaves(got[1]), jax.tree.leaves(expected[1]), strict=True):
        assert jnp.allclose(a, b, atol=GRAD_TOLERANCE * largest)


def run_steps(config, params, batches, layout, tx):
    target = abstract_state(config, tx, layout)
    with layout.use():
        step = compile_step(config, tx, target, layout, compute_dtype=jnp.float32, remat="full")
        placed = jax.device_put(
            jax.tree.map(np.asarray, params), jax.tree.map(lambda leaf: leaf.sharding, target.params)
        )
        state, history = init_state(placed, tx, target), []
        for batch in batches:
            state, metrics = step(state, batch, jnp.int32(batch["weights"].shape[0]))
            history.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    return state, history


@pytest.mark.parametrize("twin", FAMILIES, indirect=True)
def test_fifty_steps_track_a_plain_pytorch_loop(twin):
    reference, config, params = twin
    optim = OptimConfig(peak_lr=3e-3, weight_decay=0.1)  # far above s1's, so that an error in either would show
    batches = [packed_batch(seed, config.vocab_size, micro=2, rows=2, length=32) for seed in range(5)] * (STEPS // 5)
    _, history = run_steps(config, params, batches, layout_of(1, 1), make_optimizer(optim, config, STEPS))

    decay = [p for name, p in reference.named_parameters() if "norm" not in name and not name.endswith("bias")]
    rest = [p for name, p in reference.named_parameters() if "norm" in name or name.endswith("bias")]
    groups = [{"params": decay, "weight_decay": optim.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=optim.peak_lr, betas=(optim.b1, optim.b2), eps=optim.eps)
    schedule = get_cosine_schedule_with_warmup(adamw, 3, STEPS)  # 3 = ceil(0.05 * 50)
    for batch, (loss, grad_norm) in zip(batches, history, strict=True):
        ids, weights = unpacked(batch)
        # padding stands at the right, where a causal model never sees it
        scores = reference(ids).logits[:, :-1].transpose(1, 2)
        nll = torch.nn.functional.cross_entropy(scores, ids[:, 1:], reduction="none")
        total = (nll * weights[:, :-1]).sum()
        adamw.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), optim.clip_norm)
        adamw.step()
        schedule.step()
        assert loss == pytest.approx(total.item(), rel=LOSS_TOLERANCE)
        assert grad_norm == pytest.approx(norm.item(), rel=10 * LOSS_TOLERANCE)
    assert history[-1][0] < 0.8 * history[0][0]  # it did learn, so the comparison means something


# fsdp, tensor, context, data; the last cuts no weight along D, so that XLA partitions by itself
@pytest.mark.parametrize(
    ("twin", "mesh"),
    [
        *(("qwen2", mesh) for mesh in ((8, 1), (2, 2, 2), (2, 1, 2, 2), (1, 4, 1, 2))),
        *(pytest.param("qwen2", mesh, marks=pytest.mark.slow) for mesh in ((4, 2), (2, 4), (2, 1, 4), (1, 1, 8))),
        ("qwen3", (2, 2, 2)),
        *(pytest.param("qwen3-tied", mesh, marks=pytest.mark.slow) for mesh in ((8, 1), (2, 4), (2, 1, 2, 2))),
        *(pytest.param("llama", mesh, marks=pytest.mark.slow) for mesh in ((4, 2), (2, 2, 2), (1, 1, 8))),
    ],
    indirect=["twin"],
)
def test_loss_and_gradients_are_the_same_on_every_mesh(twin, mesh):
    _, config, params = twin
    batch = packed_batch(0, config.vocab_size, micro=2, rows=8, length=32)
    results = []
    for layout in (layout_of(1, 1), layout_of(*mesh)):
        with layout.use():
            placed = jax.device_put(
                jax.tree.map(np.asarray, params), layout.tree(param_axes(config), abstract_params(config))
            )
            run = jax.jit(partial(loss_and_grads, config, compute_dtype=jnp.float32, remat="full"))
            loss, grads = run(placed, place_rows(layout, batch, rows=8), jnp.int32(2))
        results.append((float(loss), jax.tree.map(np.asarray, grads)))
    (loss, grads), (sharded_loss, sharded_grads) = results
    assert sharded_loss == pytest.approx(loss, rel=MESH_TOLERANCE)
    for (path, expected), got in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(sharded_grads), strict=True
    ):
        assert np.abs(got - expected).max() <= MESH_TOLERANCE * max(np.abs(expected).max(), 1e-3), jax.tree_util.keystr(
            path
        )


def test_where_devices_are_far_apart_collectives_give_the_same(twin, monkeypatch):
    monkeypatch.setattr(rings, "is_near", lambda parts, load: False)
    test_loss_and_gradients_are_the_same_on_every_mesh(twin, (2, 2, 2))


def test_every_leaf_of_the_state_is_sharded_before_and_after_a_step(twin):
    _, config, params = twin
    layout, tx = layout_of(4, 2), make_optimizer(OptimConfig(), config, 10)
    batch = packed_batch(0, config.vocab_size, micro=1, rows=4, length=32)
    state, _ = run_steps(config, params, [batch], layout, tx)
    target = abstract_state(config, tx, layout)
    assert_sharded(state, jax.tree.map(lambda leaf: leaf.sharding, target))
    moments = state.opt_state[1][0].mu["layers"]["mlp"]["down_proj"]["kernel"]
    assert moments.addressable_shards[0].data.size * 8 == moments.size
    replicated = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), layout.sharding()), target)
    with pytest.raises(AssertionError, match="misplaced.*down_proj"):
        assert_sharded(replicated, jax.tree.map(lambda leaf: leaf.sharding, target))


def test_accumulated_gradients_equal_those_of_one_big_batch(twin):
    _, config, params = twin
    batch = packed_batch(3, config.vocab_size, micro=4, rows=2, length=32)
    whole = jax.tree.map(lambda x: x.reshape(1, 8, 32), batch)
    run = jax.jit(partial(loss_and_grads, config, compute_dtype=jnp.float32, remat="none"))
    assert_same(run(params, batch, jnp.int32(4)), run(params, whole, jnp.int32(1)))


def test_micro_batches_beyond_the_count_are_not_computed_and_never_compile_anew(twin):
    _, config, params = twin
    batch = packed_batch(4, config.vocab_size, micro=3, rows=2, length=32)
    junk = jax.tree.map(np.copy, batch)
    junk["weights"][2] = np.nan
    run = jax.jit(partial(loss_and_grads, config, compute_dtype=jnp.float32, remat="none"))
    losses_of = [float(run(params, b, jnp.int32(n))[0]) for b, n in ((batch, 2), (junk, 2), (batch, 3))]
    assert losses_of[0] == losses_of[1] < losses_of[2]
    assert run._cache_size() == 1


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("path", ["one CPU", "any device", "mesh"])
def test_chunked_loss_and_its_gradients_equal_those_from_whole_logits(path, tied, monkeypatch):
    rng = np.random.default_rng(0)
    B, T, D, V = 2, 56, 16, 96
    hidden = jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(V, D) if tied else (D, V)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, V, (B, T)), jnp.int32)
    weights = jnp.asarray(rng.random((B, T)) * (rng.random((B, T)) > 0.3), jnp.float32)

    def whole(hidden, table):
        log_p = jax.nn.log_softmax(hidden @ (table.T if tied else table))
        return -3.0 * jnp.sum(weights * jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0])

    def chunked(hidden, table):
        return 3.0 * losses.head_nll(hidden, table.T if tied else table, targets, weights)

    monkeypatch.setattr(losses, "LOGITS_CHUNK", 24)  # several chunks and a remainder
    monkeypatch.setattr(loss_on_cpu, "CHUNK", 24)
    if path == "any device":
        monkeypatch.setattr(losses, "platform", lambda: "gpu")
    expected = jax.jit(jax.value_and_grad(whole, (0, 1)))(hidden, table)
    with layout_of(2, 2, 2).use() if path == "mesh" else nullcontext():
        got = jax.device_get(jax.jit(jax.value_and_grad(chunked, (0, 1)))(hidden, table))
        alone = float(jax.jit(chunked)(hidden, table))  # without gradients
    assert_same(got, expected)
    assert alone == pytest.approx(float(expected[0]), rel=GRAD_TOLERANCE)


@pytest.mark.parametrize("twin", ["qwen2", "qwen3", "llama"], indirect=True)
def test_packed_and_separate_documents_have_the_same_gradients(twin):
    _, config, params = twin
    packed = packed_batch(6, config.vocab_size, micro=1, rows=1, length=48)
    count = packed["segment_ids"].max()
    separate = {key: np.zeros((1, count, 48), value.dtype) for key, value in packed.items()}
    for segment in range(1, count + 1):
        where = packed["segment_ids"][0, 0] == segment
        for key, value in packed.items():
            separate[key][0, segment - 1, : where.sum()] = 1 if key == "segment_ids" else value[0, 0][where]
    run = jax.jit(partial(loss_and_grads, config, compute_dtype=jnp.float32, remat="none"))
    assert_same(run(params, packed, jnp.int32(1)), run(params, separate, jnp.int32(1)))


def test_held_out_loss_is_the_training_loss_without_the_update(twin):
    _, config, params = twin
    layout, tx = layout_of(2, 1), make_optimizer(OptimConfig(), config, 10)
    batch = packed_batch(7, config.vocab_size, micro=2, rows=2, length=32)
    target = abstract_state(config, tx, layout)
    _, history = run_steps(config, params, [batch], layout, tx)
    with layout.use():
        placed = jax.device_put(
            jax.tree.map(np.asarray, params), jax.tree.map(lambda leaf: leaf.sharding, target.params)
        )
        loss = compile_loss(config, target, layout, compute_dtype=jnp.float32, remat="full")(
            placed, batch, jnp.int32(2)
        )
    assert float(loss) == pytest.approx(history[0][0], rel=GRAD_TOLERANCE)


def test_bfloat16_compute_keeps_float32_gradients_close(twin):
    _, config, params = twin
    batch = jax.tree.map(jnp.asarray, packed_batch(8, config.vocab_size, micro=1, rows=2, length=32))
    (loss, grads), (exact, _) = (
        jax.jit(partial(loss_and_grads, config, compute_dtype=dtype, remat="full"))(params, batch, jnp.int32(1))
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert float(loss) == pytest.approx(float(exact), rel=0.02)  # bfloat16 carries 8 bits


@pytest.mark.slow
def test_moments_in_bfloat16_take_half_the_memory_and_follow_those_in_float32(twin):
    _, config, params = twin
    batches = [packed_batch(seed, config.vocab_size, micro=1, rows=2, length=32) for seed in range(5)] * 4
    losses_of = {}
    for moments in ("float32", "bfloat16"):
        tx = make_optimizer(OptimConfig(peak_lr=3e-3, moments=moments), config, len(batches))
        state, history = run_steps(config, params, batches, layout_of(1, 1), tx)
        adam = state.opt_state[1][0]
        assert {leaf.dtype for leaf in jax.tree.leaves((adam.mu, adam.nu))} == {jnp.dtype(moments)}
        losses_of[moments] = [loss for loss, _ in history]
    assert losses_of["bfloat16"] == pytest.approx(losses_of["float32"], rel=0.01)  # bfloat16 carries 8 bits
    assert losses_of["bfloat16"] != losses_of["float32"] and losses_of["float32"][-1] < 0.9 * losses_of["float32"][0]


def test_learning_rate_is_transformers_cosine_with_warmup():
    optim, total = OptimConfig(), 315
    adamw = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=optim.peak_lr)
    reference = get_cosine_schedule_with_warmup(adamw, 16, total)  # 16 = ceil(0.05 * 315)
    rate = learning_rate(optim, total)
    for step in range(total):
        assert float(rate(step)) == pytest.approx(reference.get_last_lr()[0], rel=1e-5, abs=1e-12)
        adamw.step()
        reference.step()


@pytest.mark.parametrize("twin", ["qwen2", "qwen3", "llama"], indirect=True)
def test_weight_decay_spares_biases_and_norms(twin):
    _, config, params = twin
    spared = {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, keep in jax.tree_util.tree_leaves_with_path(decayed(config))
        if not keep
    }
    assert spared == {
        "layers.input_layernorm.weight",
        "layers.post_attention_layernorm.weight",
        "norm.weight",
        *{
            "qwen2": [f"layers.self_attn.{name}_proj.bias" for name in "qkv"],
            "qwen3": [f"layers.self_attn.{name}_norm.weight" for name in "qk"],
            "llama": [],
        }[config.model_type],
    }
    assert jax.tree.structure(decayed(config)) == jax.tree.structure(params)


def test_a_step_with_zero_rate_changes_nothing(twin):
    """The schedule's first rate is 0, as the reference's: parameters stay, moments move."""
    _, config, _ = twin
    tx = make_optimizer(OptimConfig(), config, 100)
    layout = layout_of(1, 1)
    state = init_state(init_params(config, jax.random.key(0)), tx, abstract_state(config, tx, layout))
    batch = jax.tree.map(jnp.asarray, packed_batch(9, config.vocab_size, micro=1, rows=2, length=32))
    after, _ = jax.jit(partial(train_step, config, tx, compute_dtype=jnp.float32, remat="none"))(
        state, batch, jnp.int32(1)
    )
    assert all(
        jnp.array_equal(a, b) for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True)
    )
    assert int(after.step) == 1
    assert logits(config, after.params, jnp.ones((1, config.hidden_size))).shape == (1, config.vocab_size)
