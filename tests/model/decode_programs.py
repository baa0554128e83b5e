"""Compiles loops of decode steps for TPUs and prints the bytes a device needs, as JSON; run as a process of its own.

libtpu keeps its lock until the process ends: in the tests' own it would keep every other one waiting.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from s1_jax.config import MeshConfig
from s1_jax.model.decode_attention import attend_branches, attend_cache, plan_visits
from s1_jax.model.kv_cache import AXES, TAIL_AXES, LayerCache, write
from s1_jax.planning.topology import describe, parse_topology
from s1_jax.planning.train_program import local_bytes
from s1_jax.sharding import DECODE_RULES, Layout, make_mesh

L = 3
# kv heads, query heads of each, head_dim
MODELS = {"32b": (8, 5, 128), "0.5b": (2, 7, 64)}


def decode(branches, queries, prefix, cache, lengths, count):
    """`count` steps of layers that only attend, with queries [B, R, N, H] of R branches a row, or of R tokens."""
    B, R, _, H = queries.shape
    K = cache[0].keys.shape[1]

    def step(i, carry):
        queries, cache = carry
        positions = lengths[:, :1] + i + jnp.arange(R)[None]
        visits: Any = plan_visits(lengths.reshape(-1, 1) + i if branches else positions + 1, cache[0])
        if branches:
            visits = plan_visits(lengths, prefix[0]), visits
        written = []
        for layer, of_layer in enumerate(cache):
            new = (queries[:, :, :K], queries[:, :, :K])
            if branches:
                queries, new = queries[:, :, None], tuple(x[:, :, None] for x in new)
                out, of_layer = attend_branches(queries, prefix[layer], of_layer, visits, new)
            elif R == 1:
                out, of_layer = attend_cache(queries, of_layer, visits, new)
            else:
                out, of_layer = attend_cache(queries, write(of_layer, positions, *new), visits)
            queries = out.reshape(B, R, -1, H)
            written.append(of_layer)
        return queries, tuple(written)

    return jax.lax.fori_loop(0, count, step, (queries, cache))


def memory(topology, model, tensor, B, S, T=1, R=None, C=1152):
    """Of the loop of T tokens a row of capacity S, or of R branches a row with tails of C, on `tensor` devices."""
    K, G, H = MODELS[model]
    layout = Layout(make_mesh(MeshConfig(tensor=tensor), describe(parse_topology(topology))[:tensor]), DECODE_RULES)

    def array(*shape, axes, dtype=jnp.bfloat16):
        fitting = [
            axis if axis and size % layout.size(axis) == 0 else None for axis, size in zip(axes, shape, strict=True)
        ]
        return jax.ShapeDtypeStruct(shape, dtype, sharding=layout.sharding(*fitting))

    def cache(*shape):
        return (LayerCache(*[array(*shape, axes=AXES if len(shape) == 4 else TAIL_AXES)] * 2),) * L

    written = cache(B, K, S, H) if R is None else cache(B, K, R, C, H)
    inputs = (
        array(B, R or T, K * G, H, axes=("batch", None, None, None)),
        None if R is None else cache(B, K, S, H),
        written,
        array(B, R or 1, axes=("batch", None), dtype=jnp.int32),
        array(axes=(), dtype=jnp.int32),
    )
    with layout.use():
        program = jax.jit(partial(decode, R is not None), donate_argnums=2).lower(*inputs).compile()
    stats: Any = program.memory_analysis()
    return {
        "caches": local_bytes(written),
        "aliased": stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
    }


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # programs of a slice cannot be read back without it
    programs = {
        f"{topology} {model} {options}": memory(topology, model, **options)
        for topology in ("v5e:2x4", "v5p:2x2x2", "v6e:2x4")
        for model, options in (
            ("32b", dict(tensor=8, B=64, S=32768)),
            ("32b", dict(tensor=1, B=8, S=32768)),
            ("32b", dict(tensor=8, B=64, S=32768, T=8)),
            ("0.5b", dict(tensor=1, B=8, S=32768)),
            ("0.5b", dict(tensor=8, B=8, S=5000)),
            ("32b", dict(tensor=4, B=8, S=32768, R=16)),
            ("0.5b", dict(tensor=1, B=8, S=4096, R=16)),
        )
    }
    print(json.dumps(programs))


if __name__ == "__main__":
    main()
