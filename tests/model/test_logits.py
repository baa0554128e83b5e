"""Whole logits against transformers: families, sizes, ties, padding, packing, the cache."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from s1_jax.model import cached, transformer
from s1_jax.model.kv_cache import init_cache
from tests.reference import FAMILIES, to_params

TOLERANCE = 1e-4  # of the largest reference logit: float32 through every layer, sums in another order
GRADIENT_TOLERANCE = 1e-5  # of the largest gradient: the same sums, recomputed
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
VARIANTS = {
    "tied": {"tie_word_embeddings": True},
    "multi-query": {"num_key_value_heads": 1},
    "multi-head": {"num_key_value_heads": 4},
    "one-layer": {"num_hidden_layers": 1},
    "yarn": {"rope_scaling": YARN, "rope_theta": 1e6},
    **FAMILIES,
}
B, T = 3, 70  # longer than YaRN's original 64 positions


def assert_close(mine, reference, tolerance=TOLERANCE):
    assert np.isfinite(mine).all()
    assert np.abs(np.asarray(mine) - np.asarray(reference)).max() <= tolerance * np.abs(np.asarray(reference)).max()


def random_ids(model, shape, seed=0):
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, shape)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits(tiny_model, run_ours, run_theirs, variant):
    for seed in range(2):
        model = tiny_model(seed, **VARIANTS[variant])
        ids = random_ids(model, (B, T), seed)
        mine = run_ours(model, ids)
        assert mine.dtype == np.float32
        assert_close(mine, run_theirs(model, ids))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("variant", ["qwen2", "qwen3", "llama", "yarn"])
def test_padding(tiny_model, run_ours, run_theirs, variant, side):
    model = tiny_model(**VARIANTS[variant])
    ids = random_ids(model, (B, T))
    lengths = np.array([T, 41, 1])
    place = np.arange(T)
    real = place < lengths[:, None] if side == "right" else place >= T - lengths[:, None]
    positions = np.where(real, np.cumsum(real, axis=1) - 1, 0)
    mine = run_ours(model, ids, positions, real.astype(np.int32))
    assert_close(mine[real], run_theirs(model, ids, real.astype(np.int64), positions)[real])
    for row in range(B):  # and the same as the row without its padding
        alone = run_theirs(model, ids[row][real[row]][None])
        assert_close(mine[row][real[row]], alone[0])


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_packed_equals_separate(tiny_model, run_ours, run_theirs, family):
    model = tiny_model(**FAMILIES[family])
    rng = np.random.default_rng(0)
    for _ in range(5):
        lengths = rng.integers(1, 30, 4)
        documents = [random_ids(model, n, seed=int(n)) for n in lengths]
        ids = np.zeros((1, 128), int)
        positions, segment_ids = np.zeros_like(ids), np.zeros_like(ids)
        starts = np.cumsum([0, *lengths])
        for index, (document, start) in enumerate(zip(documents, starts, strict=False)):
            place = slice(start, start + len(document))
            ids[0, place], positions[0, place], segment_ids[0, place] = document, np.arange(len(document)), index + 1
        mine = run_ours(model, ids, positions, segment_ids)
        for document, start in zip(documents, starts, strict=False):
            assert_close(mine[0, start : start + len(document)], run_theirs(model, document[None])[0])


@pytest.mark.parametrize("variant", ["qwen2", "qwen3", "llama", "multi-query", "yarn"])
def test_cached_equals_uncached(tiny_model, run_theirs, variant):
    """Right-padded prefill, then token by token into rows of different lengths; the cache starts full of rubbish."""
    model = tiny_model(**VARIANTS[variant])
    ids = random_ids(model, (B, T))
    reference = run_theirs(model, ids)
    prompt_lengths = np.array([5, 20, 33])
    capacity, layers = T + 3, transformer.unstack(model.params)
    cache = jax.tree.map(lambda leaf: leaf + 7.0, init_cache(model.config, B, capacity, jnp.float32))
    feed = jax.jit(partial(cached.hidden_states, model.config))

    prefill = int(prompt_lengths.max())
    positions = np.broadcast_to(np.arange(prefill), (B, prefill))
    hidden, cache = feed(layers, jnp.asarray(ids[:, :prefill]), jnp.asarray(positions), cache)
    scores = np.asarray(transformer.logits(model.config, model.params, hidden))
    for row, length in enumerate(prompt_lengths):
        assert_close(scores[row, :length], reference[row, :length])

    lengths = prompt_lengths.copy()
    for _ in range(T - int(prompt_lengths.max())):
        tokens = ids[np.arange(B), lengths][:, None]
        hidden, cache = feed(layers, jnp.asarray(tokens), jnp.asarray(lengths[:, None]), cache)
        scores = np.asarray(transformer.logits(model.config, model.params, hidden))[:, 0]
        assert_close(scores, reference[np.arange(B), lengths])
        lengths += 1


def test_cached_chunks_and_idle_rows(tiny_model, run_theirs):
    """A row with nothing to feed may feed anything at its own length: the slot is written again before it is seen."""
    model = tiny_model()
    ids = random_ids(model, (2, 24))
    reference = run_theirs(model, ids)
    cache, layers = init_cache(model.config, 2, 24, jnp.float32), transformer.unstack(model.params)
    feed = jax.jit(partial(cached.hidden_states, model.config))
    positions = np.broadcast_to(np.arange(8), (2, 8))
    _, cache = feed(layers, jnp.asarray(ids[:, :8]), jnp.asarray(positions), cache)
    idle_for, lengths = 5, np.array([8, 8])
    for step in range(15):
        tokens = ids[np.arange(2), lengths]
        if step < idle_for:
            tokens[1] = 96
        hidden, cache = feed(layers, jnp.asarray(tokens[:, None]), jnp.asarray(lengths[:, None]), cache)
        scores = np.asarray(transformer.logits(model.config, model.params, hidden))[:, 0]
        assert_close(scores[0], reference[0, lengths[0]])
        if step >= idle_for:
            assert_close(scores[1], reference[1, lengths[1]])
        lengths += [1, step >= idle_for]


@pytest.mark.slow
def test_remat_policies_give_the_same_gradients(tiny_model):
    model = tiny_model()
    ids = jnp.asarray(random_ids(model, (2, 32)))
    positions = jnp.broadcast_to(jnp.arange(32), ids.shape)
    segment_ids = jnp.ones_like(ids)

    def loss(params, remat):
        hidden = transformer.hidden_states(model.config, params, ids, positions, segment_ids, remat=remat)
        scores = transformer.logits(model.config, params, hidden)[:, :-1]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores), ids[:, 1:, None], axis=-1))

    gradients = {
        name: jax.jit(jax.grad(partial(loss, remat=name)))(model.params) for name in transformer.REMAT_POLICIES
    }
    assert set(gradients) == {"none", "minimal", "up", "mlp", "attention", "full", "offload"}
    for name, gradient in gradients.items():
        for leaf, reference in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradients["none"]), strict=True):
            assert np.abs(np.asarray(reference)).max() > 0, name
            assert_close(leaf, reference, GRADIENT_TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_match_torch(tiny_model, family):
    model = tiny_model(**FAMILIES[family])
    ids = random_ids(model, (2, 32))
    positions = jnp.broadcast_to(jnp.arange(32), ids.shape)

    def loss(params):
        hidden = transformer.hidden_states(model.config, params, jnp.asarray(ids), positions, jnp.ones_like(positions))
        scores = transformer.logits(model.config, params, hidden)[:, :-1]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores), ids[:, 1:, None], axis=-1))

    value, gradient = jax.jit(jax.value_and_grad(loss))(model.params)
    model.torch_model.zero_grad()
    out = model.torch_model(input_ids=torch.tensor(ids), labels=torch.tensor(ids))
    out.loss.backward()
    assert abs(float(value) - out.loss.item()) <= TOLERANCE * out.loss.item()
    theirs = to_params(model.torch_model, {name: p.grad for name, p in model.torch_model.named_parameters()})
    for (path, reference), mine in zip(
        jax.tree_util.tree_leaves_with_path(theirs), jax.tree.leaves(gradient), strict=True
    ):
        assert np.abs(reference).max() > 0, path
        assert_close(mine, reference)
    model.torch_model.zero_grad()


def test_bfloat16_compute_stays_near_float32(tiny_model, run_ours):
    model = tiny_model()
    ids = random_ids(model, (2, 32))
    exact, rough = run_ours(model, ids), run_ours(model, ids, compute_dtype=jnp.bfloat16)
    assert rough.dtype == np.float32
    assert 1e-5 < np.abs(exact - rough).max() / np.abs(exact).max() < 0.1  # bfloat16 keeps 8 bits, over three layers
