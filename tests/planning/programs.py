"""Compiles a few programs for a v5e:2x2 and writes what the tests read; run as a process of its own.

libtpu keeps its lock until the process ends: in the tests' own it would keep every other one waiting.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from s1_jax.planning.topology import describe, parse_topology

AXES = ("fsdp", "tensor")
LAYERS, ROWS, WIDTH = 5, 256, 1024  # of the scans
SENT = (512, 1024)  # float32, what each device gives into each collective
SENDS = 3


def matmul(x, w):
    return x @ w


def stack_of_matmuls(x, weights):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]


def batched(x, y):
    return jnp.einsum("bij,bjk->bik", x, y)


def micro_batches(x, weights, count):
    """A loop whose bound is an argument, around one over layers."""
    return jax.lax.fori_loop(0, count, lambda _, x: stack_of_matmuls(x, weights), x)


def collectives(mesh, x):
    """Each kind SENDS times, in a loop; each device holds an array of SENT."""

    def local(x):
        def body(x, _):
            x = jnp.tanh(jax.lax.all_gather(x, "fsdp", tiled=True)).reshape(2, *SENT).sum(0)
            x = jnp.tanh(jax.lax.psum(x, "tensor"))
            x = jnp.tanh(jax.lax.psum_scatter(x, "tensor", tiled=True))
            x = jnp.concatenate([x, x * 2])
            x = jnp.tanh(jax.lax.all_to_all(x, "fsdp", 0, 1, tiled=True)).reshape(SENT)
            return jnp.tanh(jax.lax.ppermute(x, "tensor", [(0, 1), (1, 0)])), None

        return jax.lax.scan(body, x, length=SENDS)[0]

    spec = PartitionSpec(AXES)
    return jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(x)


def main(folder: Path) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # programs of a slice cannot be read back without it
    devices = describe(parse_topology("v5e-4"))
    alone = SingleDeviceSharding(devices[0])
    mesh = jax.make_mesh((2, 2), AXES, devices=devices, axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def array(*shape, dtype=jnp.bfloat16, sharding=alone):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    x, w = array(ROWS, WIDTH), array(WIDTH, WIDTH)
    stack = array(LAYERS, WIDTH, WIDTH)
    spread = array(4 * SENT[0], SENT[1], dtype=jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(AXES)))
    programs = {
        "matmul": (matmul, x, w),
        "batched": (batched, array(6, 384, 128), array(6, 128, 512)),
        "stack_of_matmuls": (stack_of_matmuls, x, stack),
        "gradients": (jax.grad(lambda x, w: stack_of_matmuls(x, w).sum().astype(jnp.float32), argnums=1), x, stack),
        "large_stack": (stack_of_matmuls, array(ROWS, WIDTH), array(100, WIDTH, WIDTH)),
        "micro_batches": (micro_batches, x, stack, array(dtype=jnp.int32)),
        "collectives": (partial(collectives, mesh), spread),
    }
    costs = {}
    for name, (function, *arguments) in programs.items():
        compiled = jax.jit(function).lower(*arguments).compile()
        (folder / f"{name}.hlo").write_text(compiled.as_text() or "")
        stats: Any = compiled.cost_analysis()
        costs[name] = stats["flops"]
    (folder / "costs.json").write_text(json.dumps(costs))
    (folder / "devices.json").write_text(json.dumps([list(device.coords) for device in mesh.devices.flat]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
