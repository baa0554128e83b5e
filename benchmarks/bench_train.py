"""Real tokens per second of our training step and of TRL's SFTTrainer, side by side on this machine's CPU.

    pip install -e '.[bench]' -c constraints.txt
    python benchmarks/bench_train.py tiny LENGTHS.json
    python benchmarks/bench_train.py 0.5b LENGTHS.json --layers 2 --json runs/bench_0.5b.json

LENGTHS.json is a list of token counts, or {"examples": [{"question": 152, "thinking": 6865, "answer": 492}, ...]} whose
parts are added up. They are scaled so that the longest has --longest tokens; the tokens themselves are random.

Both sides start from the same weights and train on the same examples, in float32 with AdamW, on --threads cores of an
otherwise idle machine. A round is one pass over all examples; rounds of the two take turns, one waits while the other
runs. TRL runs with the fastest of the settings in bench_trl_settings.json, found first. Compilation and each side's
first round do not count; loading data does. At last stands the share of XLA's large float32 matmul that our model FLOPs
reach: causal attention within documents once, no padding, no embedding lookup.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.resources import files
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from _results import write_json
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from s1_jax.runtime.tables import align

# Of both sides. Without huge pages, every step takes its gigabytes anew in pages of 4 KiB.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
TRL = json.loads((Path(__file__).parent / "bench_trl_settings.json").read_text())
EXAMPLES_PER_STEP = 16  # s1's
MATMUL_SIZES = (2048, 4096)  # square; the faster counts
# XLA's products by YNNPACK, which is what it does by itself, and by Eigen
XLA_WAYS: dict[str, dict[str, str]] = {"XLA, YNNPACK": {}, "XLA, Eigen": {"xla_cpu_experimental_ynn_fusion_type": ""}}
PATIENCE_SECONDS = 30  # with a process that is not needed any more
COUNTED_TRIALS = 2  # rounds of each of TRL's settings; the faster counts


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is run for one model."""

    longest: int  # tokens of the longest example
    steps: int  # of a round
    rows: int  # B of ours
    multiple: int = 16  # of ours: T is a multiple of this


SIZES = {"tiny": Sizes(longest=256, steps=10, rows=8), "0.5b": Sizes(longest=640, steps=1, rows=4)}


@dataclasses.dataclass(frozen=True)
class Job:
    """What both sides are given."""

    folder: str  # the model, in Hugging Face layout
    token_ids: tuple[np.ndarray, ...]  # [n] int32 of each example
    rounds: int  # the first, which does not count, included
    threads: int
    seed: int
    sizes: Sizes

    @property
    def tokens(self) -> int:
        """Number of tokens of a round."""
        return sum(map(len, self.token_ids))


def main() -> None:
    """Write the model, find TRL's best settings, let both sides take turns, and print the tables."""
    options = parse_options()
    given = {name: getattr(options, name) for name in ("longest", "steps") if getattr(options, name)}
    sizes = dataclasses.replace(SIZES[options.model], **given)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ.update(ENVIRONMENT, OMP_NUM_THREADS=str(options.threads))
    with tempfile.TemporaryDirectory() as folder, progress() as show:
        show("writing the model")
        with side(write_model, options.model, options.layers, options.seed, folder) as writer:
            model_folder, vocab_size = writer.recv()
        token_ids = make_examples(read_lengths(options.lengths), sizes, vocab_size, options.seed)
        job = Job(model_folder, token_ids, options.rounds + 1, options.threads, options.seed, sizes)
        trials = []
        for number, settings in enumerate(TRL["search"][options.model]):
            show(f"TRL's settings {number + 1} of {len(TRL['search'][options.model])}")
            trials.append({**settings, "tokens_per_s": try_trl(job, settings)})
        best = max(trials, key=lambda trial: trial["tokens_per_s"])
        result = {"model": options.model, "layers": options.layers, "trials": trials, **compare(job, best, show)}
    print(format_result(result))
    write_json(options.json, result)


def parse_options() -> argparse.Namespace:
    """Parse and return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=SIZES, help="tiny: the shipped one; 0.5b: Qwen2.5-0.5B's shape, random")
    parser.add_argument("lengths", type=Path, help="JSON file with the tokens of each example")
    parser.add_argument("--layers", type=int, default=2, help="of the 0.5b shape, instead of its 24 (default: 2)")
    parser.add_argument("--longest", type=int, help="tokens of the longest example (default: tiny 256, 0.5b 640)")
    parser.add_argument("--steps", type=int, help="optimizer steps of a round (default: tiny 10, 0.5b 1)")
    parser.add_argument("--rounds", type=int, default=5, help="of each side that count (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the examples and the random model (default: 0)")
    parser.add_argument("--json", type=Path, help="file to write all figures into")
    return parser.parse_args()


def read_lengths(path: Path) -> list[int]:
    """Read the number of tokens of each example."""
    data = json.loads(path.read_text())
    examples = data["examples"] if isinstance(data, dict) else data
    return [sum(example.values()) if isinstance(example, dict) else int(example) for example in examples]


def make_examples(lengths: list[int], sizes: Sizes, vocab_size: int, seed: int) -> tuple[np.ndarray, ...]:
    """Make random examples for one round, with lengths picked at random from `lengths` and scaled down."""
    rng = np.random.default_rng(seed)
    picked = np.resize(rng.permutation(lengths), sizes.steps * EXAMPLES_PER_STEP)
    scaled = np.maximum(2, np.round(picked * (sizes.longest / max(lengths)))).astype(int)
    return tuple(rng.integers(0, vocab_size, n, dtype=np.int32) for n in scaled)


def write_model(connection: Connection, name: str, layers: int, seed: int, folder: str) -> None:
    """Send the model's folder and vocabulary size; a random model is first written into `folder`."""
    import jax

    from s1_jax.checkpoints import hf
    from s1_jax.model.sizes import PUBLISHED
    from s1_jax.model.transformer import init_params

    path = str(files("s1_jax") / "assets" / "tiny_base")
    model = hf.load_config(path)
    if name != "tiny":
        model = dataclasses.replace(PUBLISHED["Qwen/Qwen2.5-0.5B"], num_hidden_layers=layers)
        params = init_params(model, jax.random.key(seed))
        hf.save_params(Path(folder) / name, model, params, tokenizer_from=path)
        path = str(Path(folder) / name)
    connection.send((path, model.vocab_size))


def train_ours(connection: Connection, job: Job) -> None:
    """Send the seconds of compilation; then, whenever told to, run a round and send its measurements."""
    import jax.numpy as jnp

    from s1_jax.checkpoints import hf
    from s1_jax.config import DataConfig, MeshConfig, OptimConfig
    from s1_jax.data.chat import Example
    from s1_jax.data.loader import Loader
    from s1_jax.data.tokens import Corpus
    from s1_jax.sharding import TRAIN_RULES, Layout, make_mesh, place_rows
    from s1_jax.training.flops import step_flops
    from s1_jax.training.optimizer import make_optimizer
    from s1_jax.training.state import abstract_state, init_state
    from s1_jax.training.step import compile_step

    examples = tuple(Example(ids, np.ones(len(ids), bool)) for ids in job.token_ids)
    corpus = Corpus(tuple(map(str, range(len(examples)))), examples)
    shortest, multiple = job.sizes.longest, job.sizes.multiple
    config = DataConfig(
        max_length=shortest,
        row_lengths=tuple(range(shortest + -shortest % multiple, 4 * shortest, multiple)),
        loss_weighting="token",
        batch_examples=EXAMPLES_PER_STEP,
        micro_batch_rows=job.sizes.rows,
    )
    loader = Loader(corpus, config, job.seed, job.rounds)
    layout = Layout(make_mesh(MeshConfig()), TRAIN_RULES)
    with layout.use():
        model, params = hf.load_params(job.folder, dtype=jnp.float32, layout=layout)
        tx = make_optimizer(OptimConfig(), model, loader.total_steps)
        target = abstract_state(model, tx, layout)
        state = init_state(params, tx, target)
        step_fn: Any = compile_step(model, tx, target, layout, compute_dtype=jnp.float32, remat="none")
        start, compiled = time.perf_counter(), {}
        for step in loader.batches():
            if (shape := step.batch["token_ids"].shape) not in compiled:
                arguments = (state, place_rows(layout, step.batch, step.rows), jnp.int32(step.micro_batches))
                compiled[shape] = step_fn.lower(*arguments).compile()
        connection.send({"compile_seconds": time.perf_counter() - start})
        batches = loader.batches()
        for _ in range(job.rounds):
            connection.recv()
            start, losses, flops, row_tokens = time.perf_counter(), [], 0.0, 0
            for _ in range(job.sizes.steps):
                step = next(batches)
                run = compiled[step.batch["token_ids"].shape]
                state, metrics = run(state, place_rows(layout, step.batch, step.rows), jnp.int32(step.micro_batches))
                losses.append(float(metrics["loss"]))
                flops += step_flops(model, step.batch["positions"], step.batch["segment_ids"])
                row_tokens += step.row_tokens
            figures = {"seconds": time.perf_counter() - start, "loss": statistics.mean(losses), "flops": flops}
            connection.send(figures | {"real_share": job.tokens / row_tokens, "steps": len(losses)})


def train_trl(connection: Connection, job: Job, settings: Mapping[str, Any]) -> None:
    """Send {} when ready; then, whenever told to, run a round and send its measurements."""
    import logging
    import warnings

    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from transformers.utils.logging import disable_progress_bar
    from trl import SFTConfig, SFTTrainer, pack_dataset

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    disable_progress_bar()
    disable_progress_bars()
    torch.set_num_threads(job.threads)

    class Turns(TrainerCallback):
        """Waits for its turn at the start and after every epoch; a round is all that happens between."""

        def wait(self) -> None:
            connection.recv()
            self.losses: list[float] = []
            self.start = time.perf_counter()

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            connection.send({})
            self.wait()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            if "loss" in logs:
                self.losses.append(float(logs["loss"]))

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seconds = time.perf_counter() - self.start
            connection.send({"seconds": seconds, "loss": statistics.mean(self.losses), "steps": len(self.losses)})
            if state.global_step < state.max_steps:
                self.wait()

    data = Dataset.from_dict({"input_ids": [ids.tolist() for ids in job.token_ids]})
    row_length, packing = round(job.sizes.longest * settings["row_length"]), settings["packing_strategy"]
    rows_per_step = len(pack_dataset(data, row_length, packing) if packing else data) / job.sizes.steps
    rows = min(settings["rows"], round(rows_per_step))
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_length=row_length,
            packing=packing is not None,
            packing_strategy=packing or "bfd",
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=max(1, round(rows_per_step / rows)),
            torch_compile=settings["torch_compile"],
            num_train_epochs=job.rounds,
            seed=job.seed,
            **TRL["all"],
        )
        attention = settings["attention"]
        model = AutoModelForCausalLM.from_pretrained(
            job.folder, dtype=torch.float32, attn_implementation=attention, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(job.folder, trust_remote_code=False)
        trainer = SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer, callbacks=[Turns()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def multiply(connection: Connection, threads: int, library: str) -> None:
    """Send {} when ready; then, whenever told to, the FLOP/s of large matmuls, each way at its faster size."""
    ways: dict[str, list[Callable[[], Any]]] = {}
    if library == "torch":
        import torch

        torch.set_num_threads(threads)
        ways["PyTorch"] = [partial(torch.matmul, x, x) for x in (torch.randn(n, n) for n in MATMUL_SIZES)]
    else:
        import jax

        for way, options in XLA_WAYS.items():
            product = jax.jit(lambda x: x @ x, compiler_options=options)
            squares = (jax.random.normal(jax.random.key(0), (n, n)) for n in MATMUL_SIZES)
            ways[way] = [partial(lambda f, x: f(x).block_until_ready(), product, x) for x in squares]

    def speed(call: Callable[[], Any], n: int) -> float:
        start = time.perf_counter()
        call()
        return 2 * n**3 / (time.perf_counter() - start)

    def speeds() -> dict[str, float]:
        return {name: max(map(speed, calls, MATMUL_SIZES)) for name, calls in ways.items()}

    speeds()
    connection.send({})
    while connection.recv():
        connection.send(speeds())


def try_trl(job: Job, settings: Mapping[str, Any]) -> float:
    """Measure real tokens/s: the fastest of COUNTED_TRIALS rounds after the first; 0 if the settings do not run."""
    with side(train_trl, dataclasses.replace(job, rounds=COUNTED_TRIALS + 1), settings) as trl:
        try:
            trl.recv()
            rounds = [turn(trl) for _ in range(COUNTED_TRIALS + 1)]
        except EOFError:
            return 0.0
    return job.tokens / min(figures["seconds"] for figures in rounds[1:])


def compare(job: Job, settings: Mapping[str, Any], show: Callable[[str], None]) -> dict[str, Any]:
    """Run rounds of both sides and of matmuls in turn, and return the figures of the tables."""
    show("starting both sides")
    with (
        side(train_ours, job) as ours,
        side(train_trl, job, settings) as trl,
        side(multiply, job.threads, "jax") as xla,
        side(multiply, job.threads, "torch") as torch,
    ):
        compile_seconds = ours.recv()["compile_seconds"]
        for other in (trl, xla, torch):
            other.recv()
        rounds = []
        for number in range(job.rounds):
            show(f"round {number} of {job.rounds - 1}")
            rounds.append({"ours": turn(ours), "trl": turn(trl), "matmul": turn(xla) | turn(torch)})
    first, counted = rounds[0], rounds[1:]
    matmul = {name: statistics.median(r["matmul"][name] for r in counted) for name in first["matmul"]}
    flops = statistics.median(r["ours"]["flops"] / r["ours"]["seconds"] for r in counted)
    seconds = {name: statistics.median(r[name]["seconds"] for r in counted) for name in ("ours", "trl")}
    return {
        "trl_settings": dict(settings),
        "tokens": job.tokens,
        "tokens_per_s": {name: job.tokens / seconds[name] for name in seconds},
        "ratio": statistics.median(r["trl"]["seconds"] / r["ours"]["seconds"] for r in counted),
        "first_loss": {name: first[name]["loss"] for name in seconds},
        "not_counted_seconds": {"ours": compile_seconds, "trl": first["trl"]["seconds"] - seconds["trl"]},
        "model_flops_per_s": flops,
        "matmul_flops_per_s": matmul,
        "share_of_xla_matmul": flops / max(matmul[way] for way in XLA_WAYS),
        "rounds": rounds,
    }


def turn(connection: Connection) -> dict[str, Any]:
    """Let one side run a round, and return its measurements."""
    connection.send(True)
    return connection.recv()


@contextmanager
def side(work: Callable, *arguments: Any) -> Iterator[Connection]:
    """Start a process and yield the connection to it; recv() raises EOFError once the process has ended."""
    context = multiprocessing.get_context("spawn")  # so that it is born into ENVIRONMENT
    here, there = context.Pipe()
    process = context.Process(target=until_closed, args=(work, there, *arguments))
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join(PATIENCE_SECONDS)
        process.terminate()


def until_closed(work: Callable, connection: Connection, *arguments: Any) -> None:
    """Run `work` in the process of `side` until the connection is closed."""
    with suppress(EOFError, BrokenPipeError):
        work(connection, *arguments)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show a line that says what is being done; yields the function that changes it."""
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True) as bar:
        task = bar.add_task("")
        yield lambda text: bar.update(task, description=text)


def format_result(result: Mapping[str, Any]) -> str:
    """Three tables: TRL's settings, both sides, and what limits ours."""
    trials: list[tuple[str, ...]] = [("TRL: rows", "max_length", "packing", "attention", "compiled", "real tokens/s")]
    for trial in result["trials"]:
        *settings, speed = trial.values()
        trials.append((*map(str, settings), f"{speed:,.0f}" if speed else "does not run"))
    sides: list[tuple[str, ...]] = [("float32 training", "real tokens/s", "first loss", "not counted")]
    for name, label in (("ours", "s1_jax"), ("trl", "TRL")):
        speed, loss, wait = (result[key][name] for key in ("tokens_per_s", "first_loss", "not_counted_seconds"))
        sides.append((label, f"{speed:,.0f}", f"{loss:.4f}", f"{wait:.0f} s"))
    sides.append(("ratio, median of rounds", f"{result['ratio']:.2f}", "", ""))
    limit = [("float32", "GFLOP/s")]
    limit += [(f"matmul, {name}", f"{speed / 1e9:,.0f}") for name, speed in result["matmul_flops_per_s"].items()]
    limit.append(("model FLOPs of s1_jax", f"{result['model_flops_per_s'] / 1e9:,.0f}"))
    limit.append(("share of XLA's faster matmul", f"{result['share_of_xla_matmul']:.0%}"))
    return "\n\n".join(align(rows) for rows in (trials, sides, limit))


if __name__ == "__main__":
    main()
