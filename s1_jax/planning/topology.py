"""Abstract devices of a TPU slice from libtpu's compiler, by topology (`v5p:4x4x2`) or slice name as in gcloud.

libtpu holds a lock of the whole machine from its first use to the end of the process, so one process plans at a time.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.experimental import topologies

from s1_jax.errors import UserError
from s1_jax.runtime import terminal

# Slice names count TensorCores on v5p (two per chip) and chips on v5e and v6e. Shapes are the defaults of
# cloud.google.com/tpu/docs/v5p, v5e and v6e.
V5P = {8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8", 512: "4x8x8", 1024: "8x8x8"}
FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
SLICES = {
    **{f"v5p-{cores}": f"v5p:{shape}" for cores, shape in V5P.items()},
    **{f"{name}-{chips}": f"v5e:{shape}" for name in ("v5litepod", "v5e") for chips, shape in FLAT.items()},
    **{f"v6e-{chips}": f"v6e:{shape}" for chips, shape in FLAT.items()},
}
DIMENSIONS = {"v5e": 2, "v5p": 3, "v6e": 2}
KNOWN = "v5e:16x16, v5p:4x4x4, v6e:8x8 and other shapes, or " + ", ".join(
    f"{name}-{{{','.join(map(str, sizes))}}}"
    for name, sizes in (("v5p", V5P), ("v5e (or v5litepod)", FLAT), ("v6e", FLAT))
)
# libtpu asks a TPU machine's metadata server for these, and waits long if there is none.
SURROUNDINGS = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-4"}
RETRY_SECONDS = 2.0


class Topology(NamedTuple):
    """Topology of a slice: its generation and the number of chips along each axis."""

    generation: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"


def parse_topology(name: str) -> Topology:
    """Parse a topology or a slice name. Raises UserError for an unknown name, listing the known ones."""
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", SLICES.get(name, name))
    if found is None or found[1] not in DIMENSIONS:
        raise UserError(f"unknown topology {name!r}; known: {KNOWN}")
    topology = Topology(found[1], tuple(int(size) for size in found[2].split("x")))
    if len(topology.shape) != DIMENSIONS[topology.generation]:
        raise UserError(f"{name!r} has {len(topology.shape)} axes; {topology.generation} has {DIMENSIONS[found[1]]}")
    return topology


def describe(topology: Topology, say: Callable[[str], None] = lambda line: None) -> list[jax.Device]:
    """Return the slice's devices to compile for; while another process has the compiler, tell `say` and wait.

    Raises UserError if libtpu is not installed, and for shapes that it refuses.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError('planning needs the TPU compiler, libtpu: pip install "jax[tpu]" (no TPU is needed)')
    for name, value in SURROUNDINGS.items():
        os.environ.setdefault(name, value)
    chips = math.prod(topology.shape)
    alone = {"chips_per_host_bounds": [1, 1, 1]} if chips == 1 else {}
    waiting = False
    while True:
        try:
            return list(topologies.get_topology_desc(str(topology), "tpu", **alone).devices)
        except jax.errors.JaxRuntimeError as error:
            text = str(error)
            if "lockfile" not in text and "already in use" not in text:
                raise UserError(f"the TPU compiler refuses {topology}: {text.splitlines()[0]}") from None
        if not waiting:
            say("another process has the TPU compiler, which serves one at a time; waiting for it to end")
            say("(if there is no such process: rm /tmp/libtpu_lockfile)")
            waiting = True
        time.sleep(RETRY_SECONDS)


def say_on_stderr(line: str) -> None:
    """Print one line on stderr for a person who waits."""
    terminal.say(line, file=sys.stderr, flush=True)
