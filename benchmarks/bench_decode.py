"""Tokens per second of our decoder, beside transformers' `generate` and the memory's own limit, on this machine's CPU.

    pip install -e '.[test]' -c constraints.txt
    python benchmarks/bench_decode.py tiny                                          # the shipped model, 256 rows
    python benchmarks/bench_decode.py 0.5b --json runs/bench_decode_0.5b.json    # Qwen2.5-0.5B's shape, random

Both sides decode the same prompts greedily to the same number of tokens, in float32, on --threads cores of an otherwise
idle machine: one busy neighbour makes PyTorch's threads wait for each other and costs it a factor of ten, so what
others took is printed too. `generate` runs the fastest of its ways (and for the tiny model of its batch sizes), found
first. Compilation and a first run do not count; then the sides take turns, and figures are medians over rounds. A whole
run counts its prefill; a step is what one more token costs: whole runs less runs of one token.

What a step is set beside: the memory's limit, which is the rate at which the machine streams an array as large as the
weights, over the bytes that a step has to read (all weights once, the tied head among them, and the KV cache as far as
it is filled); and the step's matmuls alone, in one jitted function of XLA's, weights either way round. What budget
forcing costs is the same loop without the model: the controller and the choice of a token from given logits.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from _machine import others_seconds
from _reference import to_transformers
from _results import write_json
from transformers import CompileConfig, PreTrainedTokenizerBase

from s1_jax.checkpoints import hf
from s1_jax.config import S1, BudgetConfig, ModelConfig, SamplingConfig
from s1_jax.data.chat import prompt_ids
from s1_jax.data.synthetic import generate_problems
from s1_jax.decoding.core.budget import Budget, BudgetState
from s1_jax.decoding.core.controller import budget_controller, initial_state
from s1_jax.decoding.core.loop import decode, start
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sampling import Sampling, make_sampling, sample
from s1_jax.decoding.core.token_ids import Limits, facts_of, make_budget, make_markers, single_id, start_ids
from s1_jax.decoding.engine import Engine
from s1_jax.model import stored_weights
from s1_jax.model.sizes import PUBLISHED
from s1_jax.model.transformer import Params, init_params, unstack
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.tables import align

BASE = str(files("s1_jax") / "assets" / "tiny_base")
# With its start marker it just about fills 64 slots, so that our engine, which pads prompts to powers of two, prefills
# the same number whatever follows: else a step's time would hold a part of the prefill.
PROMPT_TOKENS = 60
Decode = Callable[[], np.ndarray]  # decodes all prompts; int32 [rows, new tokens]
COMPILE = CompileConfig(fullgraph=False)
COMPILE._compile_all_devices = True  # else what runs on a CPU is not compiled
WAYS: dict[str, dict[str, Any]] = {  # of `generate`
    "dynamic cache": {},
    "static cache": {"cache_implementation": "static"},
    "static cache, compiled": {"cache_implementation": "static", "compile_config": COMPILE},
}
SEARCH_SHARE = 3  # one in so many of the new tokens is decoded in the search
SEARCH_RUNS = 2  # of each way, after its first; the faster counts
# XLA's products by YNNPACK, which is what it does by itself, and by Eigen
XLA_WAYS: tuple[dict[str, str], ...] = ({}, {"xla_cpu_experimental_ynn_fusion_type": ""})
STREAM_COLUMNS = 7168  # of the matrix that is streamed
CONTROL_STEPS = 64
MOST_CONTROL = 0.03  # of a step
MACHINE_RUNS = 3  # a round, of each way of the matmuls and of each stream; the fastest of all counts


@dataclasses.dataclass(frozen=True)
class Case:
    """What is run for one model, and what is asked of it."""

    rows: tuple[int, ...]
    new_tokens: int
    batches: tuple[int, ...]  # of `generate`, none: all rows at once
    least_ratio: Mapping[int, float]  # by rows: our tokens/s over those of `generate`
    least_share: Mapping[int, float]  # by rows: the memory's limit of a step over our step; none: it is not measured
    must_agree: bool  # on every token; in a random model two may be as good as equal


CASES = {
    "tiny": Case((256,), 128, (32, 64, 128, 256), {256: 10.0}, {}, must_agree=True),
    "0.5b": Case((1, 8, 32), 48, (), {1: 1.0, 8: 1.2, 32: 1.0}, {1: 0.8}, must_agree=False),
}


@dataclasses.dataclass(frozen=True)
class Sides:
    """One model, ours and transformers'."""

    config: ModelConfig
    layers: Params  # each layer's as arrays of their own
    tokenizer: PreTrainedTokenizerBase
    reference: Any

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters, with the tied head counted once."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.layers))

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of a prompt with its start marker."""
        return PROMPT_TOKENS + len(start_ids(self.tokenizer))


def main() -> None:
    """Make the model, measure it at each number of rows, and print the tables, then the JSON."""
    options = parse_options()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    jax.config.update("jax_platforms", "cpu")
    torch.set_num_threads(options.threads)
    case = CASES[options.model]
    rows, new_tokens = tuple(options.rows or case.rows), options.new_tokens or case.new_tokens
    case = dataclasses.replace(case, rows=rows, new_tokens=new_tokens)
    sides = make_sides(options.model, options.layers)
    machine = Machine(sides, streams=bool(case.least_share))
    measured = []
    with progress_bar() as bar:
        for rows_at_once in case.rows:
            settings = list_settings(rows_at_once, case)
            task = bar.add_task(f"batch of {rows_at_once}", total=len(settings) + 1 + options.rounds, note="")
            prompts = make_prompts(sides.tokenizer, rows_at_once)
            trials = []
            for setting in settings:
                bar.update(task, note="{way}, batch of {batch}".format(**setting))
                trials.append(setting | {"tokens_per_s": try_generate(sides, prompts, case.new_tokens, setting)})
                bar.advance(task)
            best = max(trials, key=lambda trial: trial["tokens_per_s"])
            bar.update(task, note="compiling")
            bench = Bench(sides, machine, prompts, case.new_tokens, best)
            bar.advance(task)
            rounds = []
            for number in range(options.rounds):
                bar.update(task, note=f"round {number + 1}")
                rounds.append(bench.round())
                bar.advance(task)
            medians = {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}
            measured.append(
                {"rows": rows_at_once, "rows_equal": bench.rows_equal, "generate": best, "trials": trials}
                | {"medians": medians, "rounds": rounds}
            )
    result = {
        "model": options.model,
        "layers": sides.config.num_hidden_layers,
        "weight_bytes": sides.weight_bytes,
        "prompt_tokens": sides.prompt_tokens,
        "new_tokens": case.new_tokens,
        "threads": options.threads,
        "bars": bars(case, measured),
        "measured": measured,
    }
    print(format_result(result))
    print(json.dumps(result))
    write_json(options.json, result)


def parse_options() -> argparse.Namespace:
    """Parse and return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=CASES, help="tiny: the shipped one; 0.5b: Qwen2.5-0.5B's shape, random")
    parser.add_argument("--layers", type=int, help="of the 0.5b shape, instead of its 24")
    parser.add_argument("--rows", type=int, nargs="+", help="decoded at once (default: tiny 256, 0.5b 1 8 32)")
    parser.add_argument("--new-tokens", type=int, help="of each row (default: tiny 128, 0.5b 48)")
    parser.add_argument("--rounds", type=int, default=5, help="that count (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write all figures into")
    return parser.parse_args()


def make_sides(name: str, layers: int | None) -> Sides:
    """Make the model, changed so that neither side ever samples an end token or an id without a text.

    With nothing left to mask, both sides choose among the whole vocabulary and decode the maximum number of tokens.
    """
    tokenizer = hf.load_tokenizer(BASE)
    if name == "tiny":
        config, params = hf.load_params(BASE, dtype=jnp.float32)
    else:
        config = PUBLISHED["Qwen/Qwen2.5-0.5B"]
        config = dataclasses.replace(config, num_hidden_layers=layers or config.num_hidden_layers)
        params = init_params(config, jax.random.key(0))
    table = params["embed_tokens"]["weight"]  # tied: also the head
    drawn = np.isin(np.arange(config.vocab_size), list(tokenizer.get_vocab().values()))
    drawn[[single_id(tokenizer, text) for text in S1.end_markers]] = False
    params |= {"embed_tokens": {"weight": table * jnp.where(drawn, 1.0, 1e-3)[:, None]}}
    # as `hf.load_for_decoding` has them on a CPU
    return Sides(config, stored_weights.transpose(unstack(params)), tokenizer, to_transformers(config, params))


def make_prompts(tokenizer: PreTrainedTokenizerBase, rows: int) -> list[list[int]]:
    """Questions of the quickstart's task, PROMPT_TOKENS long each: [rows][PROMPT_TOKENS] ids."""
    prompts: list[list[int]] = []
    for problem in generate_problems(0, 40 * rows + 400):  # about one in ten is that long
        ids = prompt_ids(tokenizer, problem["problem"])
        prompts += [ids] * (len(ids) == PROMPT_TOKENS and ids not in prompts)
    return prompts[:rows]


def our_decode(sides: Sides, prompts: Sequence[list[int]], n: int) -> Decode:
    """Our side, as a user has it. The model writes on alone to the end of a context that holds `n` tokens more."""
    length, batch = sides.prompt_tokens + n, len(prompts)
    engine = Engine(sides.config, sides.layers, sides.tokenizer, max_model_len=length, batch_size=batch)
    budget = BudgetConfig(forcing=False)
    requests = [
        Request(tuple(ids), budget, problem_id=i, max_new_tokens=n, name=f"prompt {i}") for i, ids in enumerate(prompts)
    ]

    def decode() -> np.ndarray:
        tokens = [record["thinking_token_ids"] for record in engine.run(requests)]
        if short := [i for i, row in enumerate(tokens) if len(row) != n]:
            raise SystemExit(f"row {short[0]} ended after {len(tokens[short[0]])} tokens, not {n}")
        return np.array(tokens, np.int32)

    return decode


def their_decode(sides: Sides, prompts: Sequence[list[int]], n: int, *, batch: int, way: str) -> Decode:
    """`generate` of `n` tokens, `batch` prompts at a time."""
    ids = torch.tensor([[*prompt, *start_ids(sides.tokenizer)] for prompt in prompts])
    given = dict(max_new_tokens=n, do_sample=False, **WAYS[way])

    def decode() -> np.ndarray:
        with torch.inference_mode():
            parts = [
                sides.reference.generate(part, attention_mask=torch.ones_like(part), **given)[:, ids.shape[1] :]
                for part in ids.split(batch)
            ]
        return torch.cat(parts).numpy()

    return decode


def list_settings(rows: int, case: Case) -> list[dict[str, Any]]:
    """List the settings of `generate` that are tried: each way at each batch size, at most `rows`."""
    batches = sorted({min(batch, rows) for batch in case.batches or (rows,)})
    return [{"way": way, "batch": batch} for way, batch in itertools.product(WAYS, batches)]


def try_generate(sides: Sides, prompts: Sequence[list[int]], new_tokens: int, setting: Mapping[str, Any]) -> float:
    """Measure tokens/s of `generate` on all prompts, for 1/SEARCH_SHARE of the new tokens; 0 if it does not run."""
    n = -(-new_tokens // SEARCH_SHARE)
    decode = their_decode(sides, prompts, n, **setting)
    try:
        decode()
        return len(prompts) * n / min(seconds(decode) for _ in range(SEARCH_RUNS))
    except RuntimeError:
        return 0.0


def control_steps(sides: Sides, rows: int) -> Callable[[], Any]:
    """Make a run of CONTROL_STEPS steps of the decoding loop with given logits."""
    markers = make_markers(sides.tokenizer, sides.config.vocab_size)
    limits = [Limits(BudgetConfig(CONTROL_STEPS, None, 2), 1, 0)] * rows
    budget = make_budget(sides.tokenizer, limits, 2 * CONTROL_STEPS, facts_of(markers))
    settings = make_sampling([SamplingConfig()] * rows, [np.zeros(2, np.uint32)] * rows)
    logits = jax.random.normal(jax.random.key(0), (rows, sides.config.vocab_size))

    @jax.jit
    def run(logits: jax.Array, budget: Budget, settings: Sampling) -> jax.Array:
        begun = initial_state(budget, markers, jnp.ones(rows, bool))
        state = start(begun, logits, logits, jnp.zeros(rows, jnp.int32), 2 * CONTROL_STEPS)
        controller = budget_controller(budget, markers)

        def draw(logits: jax.Array, bias: jax.Array, index: jax.Array, _: BudgetState) -> jax.Array:
            return sample(logits, bias, index, settings)

        ends = jnp.int32(CONTROL_STEPS), jnp.int32(rows)
        return decode(lambda ids, positions, given: (given, given), draw, controller, state, *ends).tokens

    return lambda: run(logits, budget, settings).block_until_ready()


class Machine:
    """What limits a step, on arrays as large as the model's weights. Their values are of no consequence."""

    def __init__(self, sides: Sides, *, streams: bool) -> None:
        """`streams` or not: reading the weights says something only where no cache holds them."""
        config = sides.config
        D, F, H, L = config.hidden_size, config.intermediate_size, config.head_dim, config.num_hidden_layers
        self.heads, self.kv_heads = config.num_attention_heads * H, config.num_key_value_heads * H
        shapes = [(D, self.heads), (D, self.kv_heads), (D, self.kv_heads), (self.heads, D), (D, F), (D, F), (F, D)]
        self.layers = [[jnp.full(shape, 1 / shape[0]) for shape in shapes] for _ in range(L)]
        self.head = jnp.full((D, config.vocab_size), 1 / D)
        self.streams = self._streams(sides.weight_bytes) if streams else []

    def matmuls(self, rows: int) -> list[Callable[[], Any]]:
        """Make runs of all matmuls of one step for `rows` rows: each of XLA's ways, with weights either way round.

        Every layer has weights of its own, so that all of them are read from memory.
        """
        x = jnp.ones((rows, self.head.shape[0]))

        def step(
            product: Callable[..., jax.Array], x: jax.Array, layers: list[list[jax.Array]], head: jax.Array
        ) -> Any:
            for q, k, v, o, gate, up, down in layers:
                mixed = product(x, q) + jnp.tile(product(x, k) + product(x, v), self.heads // self.kv_heads)
                x = product(mixed, o)
                x = product(product(x, gate) * product(x, up), down)
            return product(x, head).max(axis=-1)

        def flipped(x: jax.Array, weight: jax.Array) -> jax.Array:  # a reshape, which is free: not transposed
            return jax.lax.dot_general(x, weight.reshape(weight.shape[::-1]), (((1,), (1,)), ((), ())))

        ways: tuple[Callable[..., jax.Array], ...] = (jnp.matmul, flipped)
        runs: list[Callable[[], Any]] = []
        for options, product in itertools.product(XLA_WAYS, ways):
            lowered = jax.jit(partial(step, product), compiler_options=options).lower(x, self.layers, self.head)
            run = lowered.compile()
            runs.append(partial(lambda run: run(x, self.layers, self.head).block_until_ready(), run))
            runs[-1]()
        return runs

    @staticmethod
    def _streams(size: int) -> list[Callable[[], Any]]:
        """Make runs that read one array of `size` bytes: a sum and a matrix times a vector, by XLA and by PyTorch."""
        array, column = jnp.ones((size // 4 // STREAM_COLUMNS, STREAM_COLUMNS)), jnp.ones(STREAM_COLUMNS)
        total, product = jax.jit(jnp.sum), jax.jit(jnp.matmul)
        matrix, vector = torch.from_dlpack(array), torch.ones(STREAM_COLUMNS)
        runs: list[Callable[[], Any]] = [
            lambda: total(array).block_until_ready(),
            lambda: product(array, column).block_until_ready(),
            matrix.sum,
            lambda: matrix @ vector,
        ]
        for run in runs:
            run()
        return runs


class Bench:
    """All that takes turns at one number of rows, warmed up."""

    def __init__(
        self, sides: Sides, machine: Machine, prompts: Sequence[list[int]], new_tokens: int, best: Mapping[str, Any]
    ) -> None:
        self.new_tokens, self.weight_bytes = new_tokens, sides.weight_bytes
        way = {name: best[name] for name in ("way", "batch")}
        self.decodes: dict[str, Decode] = {}
        for suffix, n in (("", new_tokens), ("_first", 1)):
            self.decodes["ours" + suffix] = our_decode(sides, prompts, n)
            self.decodes["generate" + suffix] = their_decode(sides, prompts, n, **way)
        tokens = {name: decode() for name, decode in self.decodes.items()}
        self.rows_equal = int((tokens["ours"] == tokens["generate"]).all(axis=1).sum())
        self.matmuls, self.streams = machine.matmuls(len(prompts)), machine.streams
        self.control = control_steps(sides, len(prompts))
        self.control()
        # over a run, half of the new tokens are in the cache on average
        cached = len(prompts) * (sides.prompt_tokens + new_tokens / 2)
        config = sides.config
        token_bytes = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        self.step_bytes = self.weight_bytes + cached * token_bytes

    def round(self) -> dict[str, float]:
        """Everything once: seconds, ratios of ours to `generate`, and our step's share of what limits it."""
        elsewhere, start = others_seconds(), time.perf_counter()
        figures = {name: seconds(decode) for name, decode in self.decodes.items()}
        for side in ("ours", "generate"):
            figures[f"{side}_step"] = (figures[side] - figures[f"{side}_first"]) / (self.new_tokens - 1)
        for name in ("", "_first", "_step"):
            figures[f"ratio{name}"] = figures[f"generate{name}"] / figures[f"ours{name}"]
        figures["matmuls"] = min(seconds(run) for run in self.matmuls for _ in range(MACHINE_RUNS))
        figures["control"] = min(seconds(self.control) for _ in range(MACHINE_RUNS)) / CONTROL_STEPS
        figures["share_of_control"] = figures["control"] / figures["ours_step"]
        figures["share_of_matmuls"] = figures["matmuls"] / figures["ours_step"]
        if self.streams:
            read = min(seconds(run) for run in self.streams for _ in range(MACHINE_RUNS))
            figures["stream_bytes_per_s"] = self.weight_bytes / read
            figures["limit"] = self.step_bytes / figures["stream_bytes_per_s"]
            figures["share_of_limit"] = figures["limit"] / figures["ours_step"]
        figures["others_cores"] = (others_seconds() - elsewhere) / (time.perf_counter() - start)
        return figures


def seconds(run: Callable[[], Any]) -> float:
    """Measure the seconds of wall clock that a run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def bars(case: Case, measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List the bars for each number of rows, and whether they are met."""
    asked = []
    for one in measured:
        rows, medians = one["rows"], one["medians"]
        if rows in case.least_ratio:
            asked.append((f"batch of {rows}: tokens/s over generate's", medians["ratio"], case.least_ratio[rows]))
        if rows in case.least_share:
            asked.append(
                (f"batch of {rows}: the memory's limit over a step", medians["share_of_limit"], case.least_share[rows])
            )
        asked.append((f"batch of {rows}: a step over its control", 1 / medians["share_of_control"], 1 / MOST_CONTROL))
        if case.must_agree:
            asked.append((f"batch of {rows}: rows with generate's tokens", one["rows_equal"] / rows, 1.0))
    return [{"what": what, "is": value, "least": least, "met": value >= least} for what, value, least in asked]


def format_result(result: Mapping[str, Any]) -> str:
    """Tables of the ways of `generate`, of both sides, of what limits our step, and of the bars."""
    n = result["new_tokens"]
    trials = [("generate", "rows", "batch", "tokens/s")]
    sides = [("float32 decoding", "rows", "tokens/s", "first token", "step", "equal rows")]
    ratios: list[tuple[str, ...]] = [("ratio to generate", "whole run", "first token", "step")]
    limits: list[tuple[str, ...]] = [
        ("our step", "seconds", "control", "share", "XLA's matmuls alone", "share", "memory's limit", "share", "GB/s")
    ]
    for one in result["measured"]:
        rows, medians = one["rows"], one["medians"]
        for trial in one["trials"]:
            speed = f"{trial['tokens_per_s']:,.1f}" if trial["tokens_per_s"] else "does not run"
            trials.append((trial["way"], str(rows), str(trial["batch"]), speed))
        for side, equal in (("ours", str(one["rows_equal"])), ("generate", "")):
            first, step = (f"{medians[side + name] * 1e3:,.1f} ms" for name in ("_first", "_step"))
            sides.append((side, str(rows), f"{rows * n / medians[side]:,.1f}", first, step, equal))
        ratios.append((f"batch of {rows}", *(f"{medians['ratio' + name]:.2f}" for name in ("", "_first", "_step"))))
        limit = ("-", "-", "-")
        if "limit" in medians:
            rate = f"{medians['stream_bytes_per_s'] / 1e9:.1f}"
            limit = (f"{medians['limit']:.4f}", f"{medians['share_of_limit']:.0%}", rate)
        parts = [(f"{medians[name]:.4f}", f"{medians['share_of_' + name]:.1%}") for name in ("control", "matmuls")]
        limits.append((f"batch of {rows}", f"{medians['ours_step']:.4f}", *itertools.chain(*parts), *limit))
    asked = [("bar", "least", "is", "")]
    for bar in result["bars"]:
        asked.append((bar["what"], f"{bar['least']:.2f}", f"{bar['is']:.2f}", "met" if bar["met"] else "missed"))
    tables = "\n\n".join(align(rows) for rows in (trials, sides, ratios, limits, asked))
    others = max(figures["others_cores"] for one in result["measured"] for figures in one["rounds"])
    return f"{tables}\n\nother processes took up to {others:.2f} cores in a round"


if __name__ == "__main__":
    main()
