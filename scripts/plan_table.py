"""Plan all shipped TPU configs and write the tables of docs/performance.md.

    python scripts/plan_table.py --lengths LENGTHS.json [--only s1_32b_v5p64 ...] [--write docs/performance.md]

Each row is one `python -m s1_jax.plan ... --json`. Results are saved in runs/plan/, so that the command resumes after a
stop. A table is written once all of its rows are there. LENGTHS.json has the token counts of s1's 1,000 examples (a
list, or any form that `--lengths` of plan accepts); sweeps need none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
# 16 x 32,768 tokens in one micro-batch
FULL = ["--full", "--data.max-length", "32768", "--data.row-lengths", "32768", "--data.micro-batch-rows", "16"]
FEW = ["--programs", "2"]  # of the shortest and the longest rows of a run
WIDE = ["--mesh.fsdp", "8", "--mesh.context", "1", "--mesh.tensor", "4"]  # the mesh of MaxText's figures
# config, slice, and the options that a "full" row changes
ROWS: list[tuple[str, str, list[str] | None]] = [
    ("s1_32b_v5p64", "v5p-64", None),
    ("s1_32b_v5p64", "v5p-64", [*FULL, *WIDE, "--model.remat", "full"]),
    ("s1_32b_v5p64", "v5p-64", [*FULL, *WIDE, "--model.remat", "mlp"]),
    ("s1_32b_v5p32", "v5p-32", None),
    ("s1_32b_v5p32", "v5p-32", [*FULL, "--model.remat", "full"]),
    ("s1_32b_v6e64", "v6e-64", None),
    ("s1_32b_v6e64", "v6e-64", [*FULL, "--model.remat", "full"]),
    ("s1_32b_v6e32", "v6e-32", None),
    (
        "s1_32b_v6e32",
        "v6e-32",
        [*FULL, "--data.micro-batch-rows", "8", "--model.remat", "offload", "--optim.moments", "bfloat16"],
    ),
    ("s1_32b_v5e256", "v5litepod-256", None),
    ("s1_32b_v5e256", "v5litepod-256", [*FULL, "--model.remat", "full"]),
    ("s1_14b_v5p8", "v5p-8", None),
    ("s1_7b_v5p8", "v5p-8", None),
    ("s1_3b_v5e4", "v5litepod-4", None),
    ("s1_1p5b_v6e1", "v6e-1", None),
    ("s1_0p5b_v5e1", "v5litepod-1", None),
    ("qwen3_32b_v5p64", "v5p-64", None),
    ("qwen3_32b_v5p32", "v5p-32", None),
    ("qwen3_32b_v6e32", "v6e-32", None),
    ("qwen3_8b_v5p8", "v5p-8", None),
    ("qwen3_1p7b_v6e1", "v6e-1", None),
]
INT8 = ["--stored.weights", "int8", "--stored.cache", "int8"]
# config, slice, other options
SWEEPS: list[tuple[str, str, list[str]]] = [
    ("sweep_32b_v6e8", "v6e-8", []),
    ("sweep_32b_v6e8", "v6e-8", INT8),
    ("sweep_32b_v6e16", "v6e-16", []),
    ("sweep_32b_v6e16", "v6e-16", INT8),
    ("sweep_32b_v5p8", "v5p-8", []),
    ("sweep_32b_v5e16", "v5litepod-16", []),
    ("sweep_qwen3_32b_v6e8", "v6e-8", []),
    ("sweep_qwen3_32b_v6e4", "v6e-4", []),
]
# tokens of a prompt, new tokens, rows (None: as many as fit), other options; all on a v6e-4
REQUESTS: list[tuple[int, int, int | None, list[str]]] = [
    (1024, 1024, 64, []),
    (1024, 1024, 64, INT8),
    (1024, 8192, None, []),
    (1024, 8192, None, INT8),
]
MARKS = ("table", "decoding", "answers", "requests")  # of the tables in the file
HEAD = "config|slice|step|mesh|remat|GiB a chip|of HBM|FLOPs x model|compute|HBM|ICI".split("|")
HEAD += "waiting|scheduled|minutes|overlapped|not overlapped|chip-hours|MFU".split("|")
SWEEP_HEAD = "config|slice|mesh|stored as|rows|weights|cache|GiB a chip|of HBM|moved|x least".split("|")
SWEEP_HEAD += "HBM|ICI|collectives|waiting|latency|scheduled|tokens/s|a chip|of roofline".split("|")
SWEEP_HEAD += "half full: tokens/s|a chip|of roofline".split("|")
ANSWER_HEAD = "config|slice|stored as|answers|ms a step|waiting|tokens/s|a chip|suffixes, ms|prompt, ms".split("|")
REQUEST_HEAD = "slice|stored as|prompt|new|rows|GiB a chip|ms a step|waiting|ms a prompt|new tokens/s|a chip".split("|")


def main() -> None:
    """Plan what has no saved result, then write or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=Path, help="JSON file of token counts, one per example")
    parser.add_argument("--only", nargs="*", help="plan only these configs")
    parser.add_argument("--kept", type=Path, default=PROJECT / "runs" / "plan", help="folder for results")
    parser.add_argument("--write", type=Path, help="write the tables into this file instead of printing them")
    options = parser.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    rows, sweeps, answers, requests = [HEAD], [SWEEP_HEAD], [ANSWER_HEAD], [REQUEST_HEAD]
    whole = (len(ROWS), len(SWEEPS), len(SWEEPS), len(REQUESTS))
    for number, (config, topology, full) in enumerate(ROWS, start=1):
        change = full or (["--lengths", str(options.lengths.resolve()), *FEW] if options.lengths else FEW)
        told = kept(f"{number:02}_{config}", config, topology, change, options)
        if told:
            remat = option(config, full, "--model.remat")
            rows.append(row(config, topology, full, told | {"remat": remat}))
    for config, topology, change in SWEEPS:
        told = kept("_".join([config, *["int8"] * bool(change)]), config, topology, ["--rows", *change], options)
        if told:
            sweeps.append(sweep_row(config, topology, change, told))
            answers.append(answer_row(config, topology, change, told))
    for prompt, new, batch, change in REQUESTS:
        name = "_".join(["requests", str(prompt), str(new), *["int8"] * bool(change)])
        told = kept(name, "sweep_32b_v6e8", "v6e-4", request_options(prompt, new, batch, change), options)
        if told:
            requests.append(request_row("v6e-4", change, told))
    tables = dict(zip(MARKS, (rows, sweeps, answers, requests), strict=True))
    if options.write is None:
        print("\n".join(map(markdown, tables.values())))
        return
    text = options.write.read_text()
    for (mark, lines), number in zip(tables.items(), whole, strict=True):
        if len(lines) - 1 < number:
            print(f"table {mark}: {len(lines) - 1} of {number} plans; it stays as it is", file=sys.stderr)
            continue
        table = markdown(lines)
        before, begin, rest = text.partition(f"<!-- {mark} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        text = before + begin + table + end + after
    options.write.write_text(text)


def kept(
    name: str, config: str, topology: str, change: list[str], options: argparse.Namespace
) -> dict[str, Any] | None:
    """Return a saved plan, or make it now; None if `--only` excludes it."""
    path = options.kept / f"{name}.json"
    if not path.exists() and (options.only is None or config in options.only):
        started = time.perf_counter()
        print(f"{config} {' '.join(change)} ...", file=sys.stderr, flush=True)
        path.write_text(json.dumps(plan(config, topology, change)))
        print(f"    {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return json.loads(path.read_text()) if path.exists() else None


def plan(config: str, topology: str, change: list[str]) -> dict[str, Any]:
    """Run one plan and return it as a dict."""
    command = [sys.executable, "-m", "s1_jax.plan", f"configs/{config}.py", "--topology", topology, "--json", *change]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}")
    return json.loads(done.stdout)


def option(config: str, full: list[str] | None, name: str) -> str:
    """Return the planned run's value of a string option of its model."""
    if full and name in full:
        return full[full.index(name) + 1]
    from s1_jax.runtime.cli import load_config

    return getattr(load_config(PROJECT / "configs" / f"{config}.py").model, name.rsplit(".", 1)[1])


def row(config: str, topology: str, full: list[str] | None, plan: dict[str, Any]) -> list[str]:
    """Return one line of the table of training runs."""
    memory, times, run = plan["hbm_gib"], plan["seconds"], plan["run"]
    cells = [config, topology, "full" if full else "real", mesh_of(plan), plan["remat"], f"{memory['total']:.1f}"]
    cells.append(f"{memory['total'] / memory['capacity']:.0%}" + ("" if plan["fits"] else ", does not fit"))
    if not plan["fits"]:
        return cells + [""] * (len(HEAD) - len(cells))
    cells.append(f"{plan['flops']['ratio']:.3f}")
    cells += [f"{times[name]:.2f}" for name in ("compute", "hbm", "ici", "exposed", "scheduled")]
    if full:  # one step instead of a run
        return [*cells, "", "", "", "", f"{plan['mfu']:.0%}"]
    names = ("minutes_scheduled", "minutes_overlap", "minutes_no_overlap", "chip_hours")
    return [*cells, *(f"{run[name]:.1f}" for name in names), f"{plan['mfu']:.0%}"]


def request_options(prompt: int, new: int, rows: int | None, change: list[str]) -> list[str]:
    """Return the options of a plan for requests."""
    number = ["--rows"] if rows is None else ["--batch-size", str(rows)]
    return ["--mesh.tensor", "4", *number, "--input-len", str(prompt), "--output-len", str(new), *change]


def sweep_row(config: str, topology: str, change: list[str], plan: dict[str, Any]) -> list[str]:
    """Return one line of the table of sweeps."""
    memory, full, half = plan["hbm_gib"], plan["step"]["full"], plan["step"]["half_full"]
    cells = [config, topology, mesh_of(plan), stored_as(change), str(plan["rows"])]
    cells += [f"{memory[name]:.2f}" for name in ("weights", "cache", "total")]
    cells += [f"{memory['total'] / memory['capacity']:.0%}", f"{full['bytes_moved'] / 2**30:.2f}"]
    cells += [f"{full['ratio']:.4f}", *(ms(full["seconds"][name]) for name in ("hbm", "ici"))]
    cells.append(str(sum(each["count"] for each in plan["collectives"])))
    cells += [ms(full["seconds"][name]) for name in ("exposed", "latency", "scheduled")]
    for step in (full, half):
        cells += [f"{step['tokens_per_second']:.0f}", f"{step['tokens_per_second_per_chip']:.0f}"]
        cells.append(f"{step['roofline_share']:.0%}")
    return cells


def answer_row(config: str, topology: str, change: list[str], plan: dict[str, Any]) -> list[str]:
    """Return one line of the table of answers at points of long traces."""
    told = plan["answers"]
    cells = [config, topology, stored_as(change), str(told["branches"])]
    cells += [ms(told["step"][name]) for name in ("scheduled", "exposed")]
    cells += [f"{told['tokens_per_second']:.0f}", f"{told['tokens_per_second_per_chip']:.0f}"]
    return [*cells, ms(told["suffixes"]["scheduled"]), ms(plan["prefill"]["scheduled"])]


def request_row(topology: str, change: list[str], plan: dict[str, Any]) -> list[str]:
    """Return one line of the table of requests."""
    told, times = plan["requests"], plan["step"]["requests"]["seconds"]
    cells = [topology, stored_as(change), f"{told['input_len']:,}", f"{told['output_len']:,}", str(plan["rows"])]
    cells += [f"{plan['hbm_gib']['total']:.2f}", ms(times["scheduled"]), ms(times["exposed"])]
    cells += [ms(plan["prefill"]["scheduled"]), f"{told['tokens_per_second']:.0f}"]
    return [*cells, f"{told['tokens_per_second_per_chip']:.0f}"]


def stored_as(change: list[str]) -> str:
    """Name the type of weights and cache."""
    return "int8" if INT8[1] in change else "bfloat16"


def ms(seconds: float) -> str:
    """Format a time in seconds as a number of milliseconds."""
    return f"{1000 * seconds:.2f}"


def mesh_of(plan: dict[str, Any]) -> str:
    """Describe the mesh by its axes larger than 1."""
    return " x ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1) or "1"


def markdown(rows: list[list[str]]) -> str:
    """Format a table in Markdown; the first row is its header."""
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


if __name__ == "__main__":
    main()
