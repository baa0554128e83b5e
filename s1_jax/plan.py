"""Plan a training run or a sweep for a TPU slice that you do not have.

    python -m s1_jax.plan CONFIG.py --topology v5p:4x4x2 [the run's own options]

Compiles the run's programs with the real TPU compiler on this machine, which needs no TPU; each takes a few minutes.
For a training run it prints whether the step fits into the chips' memory, how much it computes and sends, and how long
a step and the whole run take at least. For a sweep (a config of s1_jax.evaluate) it prints how many rows fit, what a
decoding step reads and sends, and the tokens per second.

Times assume 75% of the chips' peak in matrix products and full memory and interconnect bandwidth. Two bounds, with
everything overlapped and with nothing overlapped, enclose the time as scheduled: what the order of the compiled
instructions hides and waits for. FLOPs are those of all chips together.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import jax

from s1_jax.checkpoints import hf
from s1_jax.chips import GIB
from s1_jax.config import EvaluateConfig, TrainConfig
from s1_jax.config.plan import DecodePlanConfig, PlanConfig
from s1_jax.data.formats import resolve_format
from s1_jax.data.tokens import Corpus, load_corpus
from s1_jax.errors import UserError
from s1_jax.model.sizes import PUBLISHED
from s1_jax.planning.decode_estimate import LIVE, DecodePlan, Requests, make_decode_plan, most_rows
from s1_jax.planning.schedule import Timing
from s1_jax.planning.search import Result, label, search
from s1_jax.planning.topology import KNOWN, Topology, describe, parse_topology, say_on_stderr
from s1_jax.planning.train_estimate import Plan, capacity, make_plan, slice_layout, waits
from s1_jax.planning.workload import corpus_of_lengths, full_rows, read_lengths
from s1_jax.runtime.cli import load_config, parse, parse_with_file, program, run_main
from s1_jax.runtime.storage import as_path
from s1_jax.runtime.tables import align
from s1_jax.runtime.terminal import say
from s1_jax.training.checks import check_sizes

PROG = program("plan")
TIMES = {  # printed names of a step's times
    "compute": "matmuls",
    "hbm": "HBM",
    "ici": "interconnect",
    "step_overlap": "all overlapped",
    "step_no_overlap": "nothing overlapped",
}
WAITS = {"scheduled": "as scheduled", "exposed": "waiting for links", "hidden": "links hidden", "latency": "latency"}


def main(argv: list[str] | None = None) -> None:
    """Parse the options, make the plan and print it. Raises UserError, RunError."""
    # Options
    config = options(sys.argv[1:] if argv is None else argv)
    if config.topology is None:
        raise UserError(f"--topology is missing; known are {KNOWN}")
    topology = parse_topology(config.topology)

    # Devices, model
    jax.config.update("jax_platforms", "cpu")  # programs are compiled for the slice, but never run
    jax.config.update("jax_enable_compilation_cache", False)  # cached programs cannot be loaded without the devices
    devices = describe(topology, say_on_stderr)
    model = PUBLISHED.get(config.model.path) or hf.load_config(hf.resolve(config.model.path))

    # A sweep
    hop_latency = config.hop_latency_us / 1e6
    if isinstance(config, DecodePlanConfig):
        few, requests = None, requests_of(config)
        if config.rows:
            rows, few = most_rows(config, model, devices, say_on_stderr, requests)
            config = dataclasses.replace(config, batch_size=rows)
        decoding = make_decode_plan(config, model, devices, say_on_stderr, few, hop_latency, requests)
        say(to_json(decoding) if config.json else format_decode_plan(decoding, config.model.path, topology))
        return

    # A training run: its examples, then one plan or a search
    corpus, limit = examples(config), config.programs
    if config.search:
        results = search(config, model, corpus, devices, config.search_limit, say_on_stderr, hop_latency, limit)
        say(search_json(results) if config.json else format_search(results))
        return
    layout, _ = slice_layout(config, devices)
    check_sizes(config, model, 0, layout)
    plan = make_plan(config, model, corpus, devices, say_on_stderr, hop_latency, limit)
    say(to_json(plan) if config.json else format_plan(plan, config.model.path, topology))


def options(argv: list[str]) -> PlanConfig | DecodePlanConfig:
    """Parse `CONFIG.py [overrides]`, where the file is the config of a training run or a sweep."""
    if not argv or argv[0].startswith("-"):
        return parse_with_file(PlanConfig, argv, PROG, __doc__)
    run = load_config(argv[0])
    kinds = {TrainConfig: PlanConfig, EvaluateConfig: DecodePlanConfig}
    if type(run) not in kinds:
        raise UserError(f"{argv[0]} gives a {type(run).__name__}; {PROG} needs a TrainConfig or an EvaluateConfig")
    cls: Any = kinds[type(run)]
    default = cls(**{field.name: getattr(run, field.name) for field in dataclasses.fields(run)})
    return parse(cls, argv[1:], f"{PROG} {argv[0]}", default=default, description=__doc__)


def examples(config: PlanConfig) -> Corpus:
    """Return the examples of the run: placeholders of known lengths, or the data set of its config."""
    if config.full and config.lengths:
        raise UserError("--full and --lengths exclude each other; give one of them")
    if config.full:
        return full_rows(config)
    if config.lengths:
        return corpus_of_lengths(read_lengths(config.lengths), config)
    if not as_path(config.model.path).is_dir():
        raise UserError(
            f"counting the tokens of {config.data.path} needs the tokenizer of {config.model.path} in a local folder; "
            "give --lengths FILE (token counts) or --full instead"
        )
    tokenizer = hf.load_tokenizer(config.model.path)
    format, line = resolve_format(config.format, tokenizer)
    if line:
        say_on_stderr(line)
    corpus, counts = load_corpus(config.data, tokenizer, format)
    say_on_stderr(f"{config.data.path}: {counts}")
    return corpus


def requests_of(config: DecodePlanConfig) -> Requests | None:
    """Return the requests to plan for, or None. Raises UserError if only one of their two lengths is given."""
    if (config.input_len is None) != (config.output_len is None):
        raise UserError("--input-len and --output-len go together; give both or neither")
    if config.input_len is None or config.output_len is None:
        return None
    return Requests(config.input_len, config.output_len)


def format_plan(plan: Plan, path: str, topology: Topology) -> str:
    """Format the plan of a training run as aligned tables."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    memory = plan.memory
    head = f"{path} ({plan.parameters:,} parameters) on {topology}: {plan.chips} {plan.device_kind}, {mesh}"
    shapes = ", ".join(f"{count} of {M} x {B} x {T}" for (M, B, T), count in plan.shapes.items())
    share = memory.total / capacity(plan.chip)
    gib = [
        ("HBM of a chip", "GiB"),
        *(
            (name, f"{size / GIB:.2f}")
            for name, size in (
                ("parameters", memory.params),
                ("optimizer", memory.optimizer),
                ("temporaries", memory.temporaries),
                ("total", memory.total),
                ("capacity", capacity(plan.chip)),
            )
        ),
        (f"{'fits' if plan.fits else 'DOES NOT FIT'}", f"{share:.0%}"),
    ]
    parts = [head, f"steps of [M, B, T]: {shapes}", align(gib)]
    if plan.seconds is not None and plan.timing is not None and plan.run_seconds is not None and plan.compiled_flops:
        times, run = plan.seconds, plan.run_seconds
        if plan.host_bytes:
            parts[-1] += (
                f"\noffloaded: {memory.host / GIB:.2f} GiB of each chip in its host's memory, "
                f"{plan.host_bytes / GIB:.1f} GiB moved per step, not included in the times below"
            )
        parts.append(
            align(
                [
                    ("per step, all chips", "FLOPs", "x model"),
                    ("model", f"{plan.model_flops:.4g}", ""),
                    ("compiled", f"{plan.compiled_flops:.4g}", f"{plan.compiled_flops / plan.model_flops:.3f}"),
                ]
            )
        )
        sent = [("sent per step", "GiB", "s waited", "s hidden")]
        for kind, axis, size in plan.collectives:
            waited, hidden = waits(plan.timing, kind, axis).values()
            sent.append((f"{kind} over {axis}", f"{size / GIB:.3f}", f"{waited:.3f}", f"{hidden:.3f}"))
        parts.append(align(sent) if plan.collectives else "a step sends nothing")
        bounds = [(name, f"{getattr(times, field):.3f}") for field, name in TIMES.items()]
        told = [(name, f"{plan.timing.to_dict()[field]:.3f}") for field, name in WAITS.items()]
        parts.append(align([("per step", "seconds"), *bounds, *told]))
        parts.append(
            f"{plan.steps} steps: {run.scheduled / 60:.1f} minutes as scheduled "
            f"({run.scheduled / 3600 * plan.chips:.1f} chip-hours, MFU {plan.mfu:.1%}), "
            f"{run.overlap / 60:.1f} with full overlap, {run.no_overlap / 60:.1f} without"
        )
    parts.append(f"compiled in {plan.compile_seconds:.0f} s")
    return "\n\n".join(parts)


def format_decode_plan(plan: DecodePlan, path: str, topology: Topology) -> str:
    """Format the plan of a sweep as aligned tables."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    head = f"{path} ({plan.parameters:,} parameters) on {topology}: {plan.chips} {plan.device_kind}, {mesh}"
    most, room = max(plan.needs.values()), capacity(plan.chip)
    gib = [
        ("HBM of a chip", "GiB"),
        ("weights", f"{plan.weights / GIB:.2f}"),
        ("cache", f"{plan.cache / GIB:.2f}"),
        *((f"while: {name}", f"{size / GIB:.2f}") for name, size in sorted(plan.needs.items(), key=lambda n: n[1])),
        ("capacity", f"{room / GIB:.2f}"),
        ("fits" if plan.fits else "DOES NOT FIT", f"{most / room:.0%}"),
    ]
    parts = [head, f"{plan.sizes.rows} rows of {plan.sizes.capacity:,} tokens", align(gib)]
    if (step := plan.step) is not None:
        full = step.timings[LIVE["full"]]
        sent = [
            (f"{kind} over {axis}", f"{n}", f"{size / 2**20:.2f}", f"{1000 * full.exposed[kind, axis]:.2f}")
            for kind, axis, size, n in step.collectives
        ]
        parts.append(align([("sent per step", "times", "MiB", "ms waited"), *sent]) if sent else "a step sends nothing")
        titles = (*TIMES.values(), *WAITS.values())
        columns = [("step with caches", "least GiB", "moved", "x least", *(f"ms {name}" for name in titles))]
        columns[0] += ("tokens/s", "per chip", "of roofline")
        for name, live in plan.live.items():
            times, timing = step.seconds(live), step.timings[live]
            rate = plan.sizes.rows / timing.seconds
            size = (f"{step.least(live) / GIB:.2f}", f"{step.moved(live) / GIB:.2f}")
            spent = (*(getattr(times, field) for field in TIMES), *timing.to_dict().values())
            took = (f"{1000 * each:.2f}" for each in spent)
            shares = (f"{rate:.0f}", f"{rate / plan.chips:.0f}", f"{step.roofline_share(live):.0%}")
            ratio = f"{step.moved(live) / step.least(live):.4f}"
            columns.append((name.replace("_", " "), *size, ratio, *took, *shares))
        parts.append(align(list(zip(*columns, strict=True))))
    others = [("other programs", "ms", "ms waiting for links")]
    others.append((f"prompt of {plan.sizes.prompt_tokens:,} tokens", *_ms(plan.prefill)))
    if (wave := plan.answers) is not None:
        others.append((f"step of {wave.branches} answers", *_ms(wave.step)))
        others.append(("their suffixes, once", *_ms(wave.suffixes)))
    parts.append(align(others))
    if plan.requests is not None and plan.request_rate is not None:
        parts.append(
            f"requests of {plan.requests.input_len:,} + {plan.requests.output_len:,} tokens: "
            f"{plan.request_rate:.0f} new tokens/s, {plan.request_rate / plan.chips:.0f} per chip, "
            "with the time that their prompts take"
        )
    parts.append(f"compiled in {plan.compile_seconds:.0f} s")
    return "\n\n".join(parts)


def _ms(timing: Timing) -> tuple[str, str]:
    return f"{1000 * timing.seconds:.2f}", f"{1000 * timing.exposed.total():.2f}"


def to_json(plan: Plan | DecodePlan) -> str:
    """Return the plan as one JSON object."""
    return json.dumps(plan.to_dict(), indent=2)


def format_search(results: list[Result]) -> str:
    """Format a table with one line per choice, the fastest first."""
    rows = [("choice", "GiB", "x model", "s/step", "waiting", "overlapped", "minutes", "MFU")]
    for config, plan in results:
        size = f"{plan.memory.total / GIB:.1f}"
        if plan.seconds is None or plan.timing is None or plan.run_seconds is None or plan.compiled_flops is None:
            rows.append((label(config), size, "", "too large", "", "", "", ""))
            continue
        ratio = f"{plan.compiled_flops / plan.model_flops:.3f}"
        step, waited = f"{plan.timing.seconds:.2f}", f"{plan.timing.exposed.total():.2f}"
        overlap, minutes = f"{plan.seconds.step_overlap:.2f}", f"{plan.run_seconds.scheduled / 60:.1f}"
        rows.append((label(config), size, ratio, step, waited, overlap, minutes, f"{plan.mfu:.1%}"))
    return align(rows)


def search_json(results: list[Result]) -> str:
    """Return all choices as one JSON object, each with its options."""
    choices = []
    for config, plan in results:
        choice = {
            "mesh": dataclasses.asdict(config.mesh),
            "data.micro_batch_rows": config.data.micro_batch_rows,
            "data.row_lengths": config.data.row_lengths,
            "model.remat": config.model.remat,
            "train.async_collectives": config.train.async_collectives,
        }
        choices.append({"options": choice, **plan.to_dict()})
    return json.dumps({"choices": choices}, indent=2)


if __name__ == "__main__":
    run_main(main)
