"""Fine-tune a model on reasoning examples: `python -m s1_jax.train [CONFIG.py] [--section.option value ...]`.

Writes config.json, metrics.jsonl, tensorboard/, checkpoints/ and, at the end, the model in Hugging Face layout (hf/)
into `run_dir`. If the run is stopped, the same command resumes it, and the result is the same to the bit.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s1_jax.checkpoints import hf, orbax
from s1_jax.checkpoints.folder import check_replaceable
from s1_jax.chips import resolve_dtype
from s1_jax.config import S1, TrainConfig
from s1_jax.config.model_fields import Fields
from s1_jax.data.formats import resolve_format
from s1_jax.data.identity import check_same, identity_of
from s1_jax.data.loader import Loader, Step, assemble
from s1_jax.data.tokens import load_corpus, split_held_out
from s1_jax.errors import RunError, UserError
from s1_jax.runtime import terminal
from s1_jax.runtime.cli import StopFlag, parse_with_file, program, resumable, run_main, to_json
from s1_jax.runtime.files import read_earlier, write_whole
from s1_jax.runtime.locks import locked_file, locked_folder
from s1_jax.runtime.processes import Watchdog, alike, any_of, is_first, meet, start_processes, watch_for_preemption
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.storage import Mirror, as_path, mirrored
from s1_jax.sharding import TRAIN_RULES, Layout, make_mesh, place_rows
from s1_jax.training.checks import check_sizes
from s1_jax.training.flops import mfu, step_flops
from s1_jax.training.metrics import MetricsLog, find_wandb, start_wandb
from s1_jax.training.optimizer import learning_rate, make_optimizer
from s1_jax.training.state import abstract_state, init_state
from s1_jax.training.step import compile_loss, compile_step
from s1_jax.training.step_line import StepTable
from s1_jax.training.watch import StepClock, Trace, device_memory

# A run is the same run as long as these agree; the rest may change between two starts.
FREE_TO_CHANGE = ("run_dir", "checkpoint", "log", "mesh", "hosts", "train.log_every_steps", "train.async_collectives")
# Around a step: an array that is not yet where the step needs it would be copied there every time, unnoticed.
NO_HIDDEN_COPIES = partial(jax.transfer_guard, "disallow")


def main(argv: list[str] | None = None) -> None:
    """Run the command line `argv`. Raises UserError, RunError, KeyboardInterrupt, Terminated."""
    config = parse_with_file(TrainConfig, sys.argv[1:] if argv is None else argv, program("train"), __doc__)
    start_processes(config.hosts)
    with locked_folder(as_path(config.run_dir)), resumable(), mirrored(config.run_dir) as folder:
        fine_tune(config, folder)


def fine_tune(config: TrainConfig, folder: Mirror) -> None:
    """Run the whole training, in the order in which things happen. Raises as `main` does."""
    say: Callable[..., None] = terminal.say if is_first() else _nothing
    run_dir = folder.local
    exported = folder.place / "hf"
    if config.format.is_auto:
        format, line = resolve_format(config.format, hf.load_tokenizer(config.model.path))
        config = dataclasses.replace(config, format=format)
        say(line)
    if (exported / "config.json").exists():
        claim_run_dir(folder, config)
        say(f"{folder.place} is finished: the model is in {exported}")
        return
    check_replaceable(exported)  # now, as the next: what the last step refuses, hours may have gone into
    if config.log.wandb_project:
        find_wandb()

    # Devices, model, data
    layout = Layout(make_mesh(config.mesh), TRAIN_RULES)
    source = hf.resolve(config.model.path)
    model, tokenizer = hf.load_config(source), hf.load_tokenizer(source)
    check_sizes(config, model, len(tokenizer), layout)
    corpus, counts = load_corpus(config.data, tokenizer, config.format)
    training, held_out = split_held_out(corpus, config.data.held_out_share, config.train.seed)
    own_rows = layout.local("batch", config.data.micro_batch_rows)
    loader = Loader(training, config.data, config.train.seed, config.train.epochs, own_rows)
    total_steps = loader.total_steps
    held_out_step = assemble(held_out, config.data, own_rows) if len(held_out) else None
    trace = Trace(run_dir / "profile", config.log.profile_steps, total_steps)
    say(f"{config.data.path}: {counts}")
    if counts.look_alikes:
        say(counts.look_alikes)
    say(f"{total_steps} steps over {len(training)} examples, {len(held_out)} held out")
    examples = identity_of(training, held_out)
    if not alike(examples.digest):
        raise UserError(f"the processes do not read the same examples from {config.data.path}; give all the same data")
    claim_run_dir(folder, config)
    as_saved = json.loads(to_json(config))
    wandb_run = None
    if config.log.wandb_project and is_first():
        wandb_run = start_wandb(config.log.wandb_project, run_dir, as_saved)

    # State: from the last checkpoint, else from the model's weights
    tx = make_optimizer(config.optim, model, total_steps)
    target = abstract_state(model, tx, layout)
    checkpointer = orbax.Checkpointer(folder.place / "checkpoints", keep=config.checkpoint.keep)
    with layout.use():
        if checkpointer.latest_step() is None:
            _, params = hf.load_params(source, dtype=jnp.float32, layout=layout)
            state, examples_seen = init_state(params, tx, target), 0
            del params
        else:
            state, meta = checkpointer.restore(target)
            examples_seen, before = meta["examples_seen"], meta.get("examples")
            if before is not None:
                check_same(before, examples, run_dir, (training.ids, held_out.ids), folder.place)
            else:
                say(
                    "the checkpoint is of an earlier version, without a digest of its examples: only counts are checked"
                )
            check_fits(loader, int(state.step), examples_seen, folder)
    first_step = int(state.step)
    if first_step:
        say(f"resuming from step {first_step} ({examples_seen} examples seen)")
    if is_first():
        examples.keep(run_dir)

    # The loop
    options: dict[str, Any] = {
        "compute_dtype": resolve_dtype(config.model.dtype),
        "remat": config.model.remat,
        "async_collectives": config.train.async_collectives,
    }
    step_fn = compile_step(model, tx, target, layout, **options)
    loss_fn = compile_loss(model, target, layout, **options)
    rate = learning_rate(config.optim, total_steps)
    # a run from the start makes the row of step 0 again
    log = MetricsLog(run_dir, first_step or -1, wandb_run) if is_first() else None
    table = StepTable(total_steps, config.train.log_every_steps)

    with ExitStack() as stack:
        stack.enter_context(layout.use())
        stop = stack.enter_context(StopFlag("the first step"))
        watch_for_preemption(stop.ask)
        watchdog = stack.enter_context(Watchdog(config.hosts.stall_seconds))
        for written in (log, trace):
            stack.enter_context(written or nullcontext())
        bar = stack.enter_context(progress_bar(shown=is_first()))
        bar_row = bar.add_task("fine-tuning", total=total_steps, completed=first_step, note="")
        clock, number, saved_step = StepClock(), first_step, first_step

        def placed(step: Step) -> tuple[dict[str, jax.Array], jax.Array]:
            return place_rows(layout, step.batch, step.rows), layout.everywhere(np.int32(step.micro_batches))

        def held_out_loss() -> float:
            assert held_out_step is not None
            batch, micro_batches = placed(held_out_step)
            with clock.compiling("held-out loss", batch["token_ids"].shape) as new:
                if new:
                    bar.update(bar_row, note="compiling the held-out loss")
                with NO_HIDDEN_COPIES():
                    loss = loss_fn(state.params, batch, micro_batches)
            bar.update(bar_row, note="held-out loss")
            return float(jax.device_get(loss))

        # Before the first step
        if held_out_step and not first_step:
            watchdog.tick("held-out loss before the first step")
            loss_before = held_out_loss()
            say(f"held-out loss before the first step: {loss_before:.4f}")
            if log is not None:
                log.write({"step": 0, "loss": None, "held_out_loss": loss_before, "examples_seen": 0, "epoch": 0.0})
        batches = ((step, placed(step)) for step in clock.waiting(loader.batches(examples_seen)))
        watchdog.tick("waiting for the first input")
        upcoming = next(batches, None)
        while upcoming is not None:
            number, (step, (batch, micro_batches)) = number + 1, upcoming
            watchdog.tick(f"step {number}")
            stop.waits_for = f"step {number}, which is then saved"
            shape = batch["token_ids"].shape
            with trace.step(number), clock.step():
                with clock.compiling("step", shape) as new:
                    if new:
                        bar.update(bar_row, note=f"compiling {list(shape)}")
                    with NO_HIDDEN_COPIES():
                        state, metrics = step_fn(state, batch, micro_batches)
                if new:
                    bar.update(bar_row, note=f"computing step {number}")
                watchdog.tick(f"step {number}: waiting for the input of the next")
                upcoming = next(batches, None)  # while the devices compute
                watchdog.tick(f"step {number}: waiting for the devices")
                scalars = {name: float(value) for name, value in jax.device_get(metrics).items()}
            # the parameters too: an update can overflow after a finite loss, and would be saved as the last good step
            if not all(np.isfinite(value) for value in scalars.values()):
                checkpointer.close()
                raise RunError(f"step {number}: {diverged(scalars, step, saved_step)}")
            examples_seen, took = step.examples_seen, clock.took
            flops = step_flops(model, step.batch["positions"], step.batch["segment_ids"])
            flops *= config.data.micro_batch_rows / len(own_rows)  # the other processes' rows are about as long
            row: dict[str, Any] = {
                "step": number,
                **scalars,
                "lr": float(rate(number - 1)),
                "tokens": step.row_tokens,
                "real_share": step.real_share,
                "real_tokens_per_s": step.real_tokens / took.seconds,
                "examples_seen": examples_seen,
                "epoch": examples_seen / len(training),
                "mfu": mfu(flops, took.seconds),
                "seconds": took.seconds,
                "input_wait_seconds": took.input_wait,
                **device_memory(),
            }
            if took.compilation is not None:
                row["compile_seconds"] = took.compilation
            last = number == total_steps
            if held_out_step and (last or number % config.train.held_out_every_steps == 0):
                row["held_out_loss"] = held_out_loss()
            if log is not None:
                log.write(row)
            seconds_left = clock.seconds_left(total_steps - number)
            for line in table.lines(row | {"seconds_left": seconds_left, "shape": shape}):
                say(line)
            bar.update(bar_row, completed=number, seconds_left=seconds_left, note=f"loss {scalars['loss']:.3f}")
            stopping = any_of(stop.asked)
            if last or stopping or number % config.checkpoint.every_steps == 0:
                folder.keep()  # rows of steps that a restart does not make again
                meta = {"examples_seen": examples_seen, "examples": examples.digest, "config": as_saved}
                checkpointer.save(number, state, meta)
                saved_step = number
                if stopping:
                    checkpointer.close()
                    stop.ask()  # another process may have been told
                    stop.check()
    checkpointer.close()

    # What others load
    with locked_file(exported):
        hf.save_params(exported, model, state.params, tokenizer_from=source)
    say(f"done: {total_steps} steps; the model is in {exported}")


def claim_run_dir(folder: Mirror, config: TrainConfig) -> None:
    """Write `config.json` into the run's folder. Raises UserError if it contains a run with other options."""
    path = folder.local / "config.json"
    now = json.loads(to_json(config))
    saved = [folder.place / "hf", *(folder.place / "checkpoints").glob("*")]
    before = read_earlier(path, bound=any(one.exists() for one in saved))
    if before is not None:
        fields = Fields({"format": json.loads(to_json(S1))} | before, str(path))  # earlier versions knew s1's alone
        differing = [
            f"{section}.{name} was {old!r}, is {options.get(name)!r}"
            for section, options in now.items()
            if section not in FREE_TO_CHANGE and isinstance(options, dict)
            for name, old in fields.section(section).values.items()
            if options.get(name) != old and f"{section}.{name}" not in FREE_TO_CHANGE
        ]
        if differing:
            raise UserError(
                f"{folder.place} contains a run with other options ({'; '.join(differing)}); choose another --run-dir"
            )
    meet("run_dir is looked at")
    if is_first():
        folder.local.mkdir(parents=True, exist_ok=True)
        write_whole(path, to_json(config))
        folder.keep()
    meet("run_dir is claimed")


def check_fits(loader: Loader, step: int, examples_seen: int, folder: Mirror) -> None:
    """Raise UserError if a checkpoint of this step and position cannot come from the loader's examples."""
    left = len(loader.plan(examples_seen))
    if step + left != loader.total_steps or examples_seen > loader.epochs * len(loader.corpus):
        raise UserError(
            f"{folder.place} is at step {step}, behind {examples_seen} examples, where this data makes "
            f"{loader.total_steps} steps of {loader.epochs * len(loader.corpus)}: the run had other data; bring that "
            "back, or choose another --run-dir"
        )


def diverged(scalars: dict[str, float], step: Step, saved_step: int) -> str:
    """Describe a step whose numbers are not finite."""
    numbers = ", ".join(f"{name} {value}" for name, value in sorted(scalars.items()))
    kept = f"the last good checkpoint is that of step {saved_step}" if saved_step else "no checkpoint was saved before"
    return f"{numbers}, from examples {', '.join(step.example_ids)}; {kept}"


def _nothing(*_: object) -> None:
    """Print nothing, in processes other than the first."""


if __name__ == "__main__":
    run_main(main)
