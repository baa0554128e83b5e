"""The layout: words, collisions, meshes, and the same model on every mesh."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from s1_jax.config import MeshConfig
from s1_jax.errors import UserError
from s1_jax.model import cached, transformer
from s1_jax.model.kv_cache import init_cache
from s1_jax.sharding import (
    DECODE_RULES,
    TRAIN_RULES,
    Layout,
    assert_sharded,
    constrain,
    current_row_order,
    make_mesh,
    place_rows,
    row_chunk,
    row_order,
    shard_over,
    sum_scatter,
)

TOLERANCE = 1e-5  # of the largest value: float32 sums cut into other pieces
B, T = 8, 16
# fsdp x tensor (x context)
MESHES = {"1x1": (1, 1), "8x1": (8, 1), "4x2": (4, 2), "2x4": (2, 4), "2x2x2": (2, 2, 2)}


def make_layout(fsdp, tensor, context=1, rules=TRAIN_RULES):
    devices = jax.devices()[: fsdp * tensor * context]
    return Layout(make_mesh(MeshConfig(fsdp=fsdp, tensor=tensor, context=context), devices), rules)


def assert_close(mine, reference):
    mine, reference = np.asarray(mine), np.asarray(reference)
    assert np.abs(mine - reference).max() <= TOLERANCE * np.abs(reference).max()


def test_spec():
    layout = make_layout(4, 2)
    assert layout.spec("layers", "embed", "heads") == PartitionSpec(None, ("fsdp", "context"), "tensor")
    assert layout.spec("batch", None) == PartitionSpec(("data", "fsdp"), None)
    with pytest.raises(ValueError, match="unknown logical axis 'hidden'"):
        layout.spec("hidden")
    with pytest.raises(ValueError, match="'fsdp' is used twice"):
        layout.spec("batch", "embed")


def test_tree_names_what_does_not_divide(tiny_model):
    config = tiny_model().config  # a vocabulary of 97
    with pytest.raises(UserError, match=r"lm_head\.kernel: axis 'vocab' of size 97 does not divide over 2"):
        make_layout(4, 2).tree(transformer.param_axes(config), transformer.abstract_params(config))


def test_meshes():
    assert dict(make_mesh(MeshConfig()).shape) == {"data": 1, "fsdp": 8, "context": 1, "tensor": 1}
    assert dict(make_mesh(MeshConfig(tensor=2, data=2)).shape) == {"data": 2, "fsdp": 2, "context": 1, "tensor": 2}
    with pytest.raises(UserError, match="only one mesh axis may be -1"):
        make_mesh(MeshConfig(tensor=-1))
    with pytest.raises(UserError, match="9 places; there are 8 devices"):
        make_mesh(MeshConfig(fsdp=3, tensor=3))
    with pytest.raises(UserError, match="there are 8 devices"):
        make_mesh(MeshConfig(tensor=3))


def test_axes_and_sizes_of_logical_axes():
    layout = make_layout(2, 2, 2)
    assert layout.axes("residual_length") == ("context", "tensor") and layout.size("residual_length") == 4
    assert layout.axes("heads") == ("tensor",) and layout.axes("norm") == () and layout.size("norm") == 1


@pytest.mark.parametrize("length,parts", [(16, 1), (16, 2), (48, 3), (64, 8)])
def test_row_order_gives_each_part_a_fair_share_of_a_causal_mask(length, parts):
    order = row_order(length, parts)
    assert sorted(order) == list(range(length))
    work = (order + 1).reshape(parts, -1).sum(axis=1)  # a token at position p sees p + 1
    assert len(set(work)) == 1
    assert np.array_equal(row_order(length + 1, 2), np.arange(length + 1))  # what does not divide stays in order


@pytest.mark.parametrize(
    "length,parts,chunk",
    [
        (24576, 4, 512),
        (22528, 4, 512),
        (21504, 4, 384),
        (22528, 2, 512),
        (4096, 4, 512),
        (2048, 4, 256),
        (1536, 4, 192),
        (64, 2, 16),
    ],
)
def test_rows_are_dealt_in_chunks_that_are_blocks_of_attention(length, parts, chunk):
    assert row_chunk(length, parts) == chunk
    order = row_order(length, parts)
    assert sorted(order) == list(range(length))
    per_part = order.reshape(parts, -1)
    assert (np.diff(per_part, axis=1) > 0).all()  # documents never fall along a device's slots
    chunks = per_part.reshape(-1, chunk)
    assert (chunks % chunk == np.arange(chunk)).all()
    work = (order + 1).reshape(parts, -1).sum(axis=1)  # a token at position p sees p + 1
    rounds = length // parts // chunk
    assert work.max() / work.min() <= (1 if rounds % 2 == 0 else 1 + parts / rounds**2)
    # a document of a quarter of the row is dealt to all
    here = (per_part < length // 4).sum(axis=1)
    assert here.min() >= here.max() - chunk


def test_rows_are_placed_in_the_order_that_the_layout_says():
    layout = make_layout(2, 1, 2)
    array = np.arange(3 * 4 * T).reshape(3, 4, T)
    placed = place_rows(layout, {"ids": array}, rows=4)["ids"]
    with layout.use():
        order = current_row_order(T)
    assert np.array_equal(placed, array[..., order]) and not np.array_equal(placed, array)
    assert placed.sharding.is_equivalent_to(layout.sharding("micro", "batch", "length"), 3)
    assert np.array_equal(current_row_order(T), np.arange(T)), "without a layout"


@pytest.mark.parametrize("dimension", [0, 1, 2])
def test_sum_scatter_leaves_each_device_its_piece_of_the_sum(dimension, monkeypatch):
    layout = make_layout(4, 1, 2)
    x = np.random.default_rng(0).normal(size=(8, 16, 8, 24)).astype(np.float32)  # [device, ...]

    def local(x):
        return sum_scatter(layout, x[0], ("fsdp", "context"), dimension)

    place = [None, None, None]
    place[dimension] = "embed"
    for planes in ([("fsdp", "context")], [("fsdp",), ("context",)]):  # at once, or as over more than two torus axes
        monkeypatch.setattr(Layout, "planes", lambda self, axes, planes=planes: planes)
        run = shard_over(layout, local, (("embed", None, None, None),), tuple(place))
        np.testing.assert_allclose(jax.jit(run)(x), x.sum(axis=0), rtol=1e-5, atol=1e-5)


def test_constrain_places_what_divides_and_leaves_the_rest():
    layout = make_layout(4, 2)
    with layout.use():
        whole = jax.jit(lambda x: constrain(x, "batch", "length", "act_heads"))(jnp.zeros((8, 3, 6)))
        part = jax.jit(lambda x: constrain(x, "batch", "length", "act_heads"))(jnp.zeros((3, 3, 6)))
    assert whole.sharding.is_equivalent_to(layout.sharding("batch", None, "act_heads"), 3)
    assert part.sharding.is_equivalent_to(layout.sharding(None, None, "act_heads"), 3)
    x = jnp.zeros((8, 3, 6))
    assert constrain(x, "batch", "length", "act_heads") is x  # no layout in use


def test_assert_sharded_names_misplaced_arrays():
    layout = make_layout(4, 2)
    wanted = {"a": layout.sharding("embed"), "b": layout.sharding("embed")}
    tree = {"a": jax.device_put(jnp.zeros(8), wanted["a"]), "b": jnp.zeros(8)}
    assert_sharded({"a": tree["a"]}, {"a": wanted["a"]})
    with pytest.raises(AssertionError, match="misplaced arrays: .*b") as error:
        assert_sharded(tree, wanted)
    assert "'a'" not in str(error.value)


def test_adam_moments_keep_their_place(tiny_model):
    """On an Auto mesh a plain `jit(tx.init)` replicates them; with out_shardings they follow the parameters."""
    config = tiny_model(vocab_size=96).config
    layout = make_layout(4, 2)
    shardings = layout.tree(transformer.param_axes(config), transformer.abstract_params(config))
    params = jax.device_put(tiny_model(vocab_size=96).params, shardings)
    assert_sharded(params, shardings)
    tx = optax.scale_by_adam()
    placed = optax.tree_utils.tree_map_params(
        tx, lambda _, s: s, jax.eval_shape(tx.init, params), shardings, transform_non_params=lambda _: layout.sharding()
    )
    assert_sharded(jax.jit(tx.init, out_shardings=placed)(params).mu, shardings)


def loss_and_logits(config, params, ids, positions, segment_ids):
    hidden = transformer.hidden_states(config, params, ids, positions, segment_ids, remat="full")
    in_order = np.argsort(current_row_order(T))
    scores, ids = transformer.logits(config, params, hidden)[:, in_order], ids[:, in_order]
    wanted = jnp.take_along_axis(jax.nn.log_softmax(scores[:, :-1]), ids[:, 1:, None], axis=-1)
    return -jnp.mean(wanted), scores


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 96, (B, T))
    cut = rng.integers(1, T, (B, 1))
    place = np.arange(T)
    return tuple(jnp.asarray(x) for x in (ids, np.where(place < cut, place, place - cut), 1 + (place >= cut)))


@pytest.mark.slow
def test_same_logits_and_gradients_on_every_mesh(tiny_model, batch):
    """2x4 cuts two kv heads over four devices: tensor parallelism goes beyond them."""
    model = tiny_model(vocab_size=96)
    assert model.config.num_key_value_heads == 2
    results = {}
    for name, shape in MESHES.items():
        layout = make_layout(*shape)
        shardings = layout.tree(transformer.param_axes(model.config), transformer.abstract_params(model.config))
        params = jax.device_put(model.params, shardings)
        rows = place_rows(layout, dict(enumerate(np.asarray(x)[None] for x in batch)), rows=B)
        with layout.use():
            run = jax.jit(jax.value_and_grad(partial(loss_and_logits, model.config), has_aux=True))
            results[name] = jax.device_get(run(params, *(x[0] for x in rows.values())))
    reference = results["1x1"]
    for name in MESHES:
        for mine, theirs in zip(jax.tree.leaves(results[name]), jax.tree.leaves(reference), strict=True):
            assert_close(mine, theirs)


@pytest.mark.slow
def test_same_cached_logits_on_every_mesh(tiny_model, batch):
    model = tiny_model(vocab_size=96)
    ids = batch[0]
    results = {}
    for name, shape in MESHES.items():
        layout = make_layout(*shape, rules=DECODE_RULES)
        shardings = layout.tree(transformer.param_axes(model.config), transformer.abstract_params(model.config))
        params = jax.device_put(model.params, shardings)

        def run(params, ids):
            cache, layers = init_cache(model.config, B, T, jnp.float32), transformer.unstack(params)
            positions = jnp.broadcast_to(jnp.arange(T), (B, T))
            hidden, cache = cached.hidden_states(model.config, layers, ids[:, :-1], positions[:, :-1], cache)
            last, _ = cached.hidden_states(model.config, layers, ids[:, -1:], positions[:, -1:], cache)
            return transformer.logits(model.config, params, jnp.concatenate([hidden, last], axis=1))

        with layout.use():
            results[name] = jax.device_get(jax.jit(run)(params, ids))
    for name in MESHES:
        assert_close(results[name], results["1x1"])
