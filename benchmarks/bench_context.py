"""What a step costs against how many tokens its rows hold: the weights' part is flat, the cache's grows with them.

    python benchmarks/bench_context.py                                   # the shape of Qwen2.5-0.5B, 4 of its 24 layers
    python benchmarks/bench_context.py --layers 24 --rows 1 --json runs/bench_context.json

Random weights in float32, a cache of zeros, every row as long as the context says; the decoder's own loop runs STEPS
steps, compiled before. Off TPU attention reads the cache to its capacity, a power of two, which is how far rows are
filled here; on TPU it reads what is live, in blocks, and docs/performance.md has what that takes. A line is fitted
through the times by least squares: seconds = flat + slope x tokens. Beside it stands what reading as many
bytes as the cache then holds takes at the rate of the largest one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _results import write_json

from s1_jax.checkpoints import hf
from s1_jax.config import BudgetConfig, SamplingConfig
from s1_jax.decoding.core.controller import initial_state
from s1_jax.decoding.core.sampling import PhaseSampling, make_sampling
from s1_jax.decoding.core.token_ids import Limits, facts_of, make_budget, make_markers
from s1_jax.decoding.device.programs import Programs
from s1_jax.model import stored_weights
from s1_jax.model.sizes import PUBLISHED
from s1_jax.model.transformer import init_params, unstack
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.tables import align

BASE = str(files("s1_jax") / "assets" / "tiny_base")
STEPS = 16
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
ROOM = 64  # for markers and an answer that is never decoded
MOST_OFF = 0.15  # of a step, by which a time may lie off the line


def main() -> None:
    """Measures every length in turn, round after round; prints the table, the JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--rows", type=int, default=4, help="of the batch (default: %(default)s)")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="tokens of a row, powers of two")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write the figures into")
    options = parser.parse_args()
    model = dataclasses.replace(PUBLISHED["Qwen/Qwen2.5-0.5B"], num_hidden_layers=options.layers)
    params = stored_weights.transpose(unstack(init_params(model, jax.random.key(0))))
    steps = [Steps(model, params, options.rows, length) for length in options.lengths]
    seconds: list[list[float]] = [[] for _ in steps]
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=options.rounds * len(steps), note="")
        for _ in range(options.rounds):
            for taken, step in zip(seconds, steps, strict=True):
                bar.update(task, note=f"{step.length:,} tokens")
                taken.append(step.seconds())
                bar.advance(task)
    medians = [statistics.median(taken) for taken in seconds]
    token_bytes = options.rows * 2 * 4 * options.layers * model.num_key_value_heads * model.head_dim
    slope, flat = np.polyfit(options.lengths, medians, 1)
    off = [abs(taken - flat - slope * length) / taken for length, taken in zip(options.lengths, medians, strict=True)]
    rows = [("tokens of a row", "step", "on the line", "cache's part", "of a token of every row", "cache read at")]
    for length, median in zip(options.lengths, medians, strict=True):
        cache = median - flat
        rate = token_bytes * length / cache / 1e9 if cache > 0 else 0.0
        rows.append(
            (
                f"{length:,}",
                f"{median * 1e3:.1f} ms",
                f"{(flat + slope * length) * 1e3:.1f} ms",
                f"{cache * 1e3:.1f} ms",
                f"{cache / length * 1e6:.2f} us",
                f"{rate:.1f} GB/s" if rate else "-",
            )
        )
    print(align(rows))
    print(f"flat {flat * 1e3:.1f} ms, slope {slope * 1e6:.2f} us a token of every row")
    print(f"off the line: {max(off):.0%} at most")
    result: dict[str, Any] = {
        "layers": options.layers,
        "rows": options.rows,
        "lengths": list(options.lengths),
        "seconds": medians,
        "flat": float(flat),
        "slope": float(slope),
        "off": max(off),
        "met": max(off) <= MOST_OFF,
    }
    print(json.dumps(result))
    write_json(options.json, result | {"rounds": seconds})


class Steps:
    """STEPS steps of `rows` rows that hold `length` tokens each when they are done, warmed up."""

    def __init__(self, model: Any, params: Any, rows: int, length: int) -> None:
        self.length, self._rows, self._before = length, rows, length - STEPS
        tokenizer = hf.load_tokenizer(hf.resolve(BASE))
        self._markers = make_markers(tokenizer, model.vocab_size)
        most = length + ROOM
        self._programs = Programs(model, params, self._markers, most, jnp.float32, jnp.float32, None)
        limits = [Limits(BudgetConfig(STEPS + 1), self._before, 0)] * rows  # no end can be drawn
        self._budget = make_budget(tokenizer, limits, most, facts_of(self._markers))
        settings = make_sampling([SamplingConfig()] * rows, [np.zeros(2, np.uint32)] * rows)
        self._settings = PhaseSampling(settings, settings)
        self._begun = jax.jit(partial(initial_state, self._budget, self._markers))  # an array of each field
        self.seconds()

    def seconds(self) -> float:
        """Measure the seconds of one step."""
        state = self._programs.empty_slots(self._rows, self.length)
        state = dataclasses.replace(
            state,
            controller_state=self._begun(jnp.ones(self._rows, bool)),
            position=jnp.full(self._rows, self._before, jnp.int32),
        )
        jax.block_until_ready(state)
        start = time.perf_counter()
        state = self._programs.decode(state, self._budget, self._settings, np.int32(STEPS), np.int32(self._rows))
        jax.block_until_ready(state)
        assert int(state.step) == STEPS
        return (time.perf_counter() - start) / STEPS


if __name__ == "__main__":
    main()
