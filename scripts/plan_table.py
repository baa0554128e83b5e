"""Plan all shipped TPU configs and write the tables of docs/performance.md.

    python scripts/plan_table.py --lengths LENGTHS.json [--only s1_32b_v5p64 ...] [--write docs/performance.md]

Each row is one `python -m s1_jax.plan ... --json`. Results are saved in runs/plan/, so that the command resumes after a
stop. LENGTHS.json has the token counts of s1's 1,000 examples (a list, or any form that `--lengths` of plan accepts);
sweeps need none.
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
]
# slice of each sweep's config
SWEEPS = {
    "sweep_32b_v6e8": "v6e-8",
    "sweep_32b_v6e16": "v6e-16",
    "sweep_32b_v5p8": "v5p-8",
    "sweep_32b_v5e16": "v5litepod-16",
}
HEAD = "config|slice|step|mesh|remat|GiB a chip|of HBM|FLOPs x model|compute|HBM|ICI".split("|")
HEAD += "waiting|scheduled|minutes|overlapped|not overlapped|chip-hours|MFU".split("|")
SWEEP_HEAD = "config|slice|mesh|rows|weights|cache|GiB a chip|of HBM|moved|x least".split("|")
SWEEP_HEAD += "HBM|ICI|collectives|waiting|latency|scheduled|tokens/s|a chip|of roofline".split("|")
SWEEP_HEAD += "half full: tokens/s|a chip|of roofline".split("|")


def main() -> None:
    """Plan what has no saved result, then write or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=Path, help="JSON file of token counts, one per example")
    parser.add_argument("--only", nargs="*", help="plan only these configs")
    parser.add_argument("--kept", type=Path, default=PROJECT / "runs" / "plan", help="folder for results")
    parser.add_argument("--write", type=Path, help="write the tables into this file instead of printing them")
    options = parser.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    rows, sweeps = [HEAD], [SWEEP_HEAD]
    for number, (config, topology, full) in enumerate(ROWS, start=1):
        change = full or (["--lengths", str(options.lengths.resolve())] if options.lengths else [])
        told = kept(f"{number:02}_{config}", config, topology, change, options)
        if told:
            remat = option(config, full, "--model.remat")
            rows.append(row(config, topology, full, told | {"remat": remat}))
    for config, topology in SWEEPS.items():
        told = kept(config, config, topology, ["--rows"], options)
        if told:
            sweeps.append(sweep_row(config, topology, told))
    tables = {"table": markdown(rows), "decoding": markdown(sweeps)}
    if options.write is None:
        print("\n".join(tables.values()))
        return
    text = options.write.read_text()
    for mark, table in tables.items():
        if table.count("\n") == 2:  # without a plan the old table stays
            continue
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


def sweep_row(config: str, topology: str, plan: dict[str, Any]) -> list[str]:
    """Return one line of the table of sweeps."""
    memory, full, half = plan["hbm_gib"], plan["step"]["full"], plan["step"]["half_full"]
    cells = [config, topology, mesh_of(plan), str(plan["rows"])]
    cells += [f"{memory[name]:.2f}" for name in ("weights", "cache", "total")]
    cells += [f"{memory['total'] / memory['capacity']:.0%}", f"{full['bytes_moved'] / 2**30:.2f}"]
    cells += [f"{full['ratio']:.4f}", *(f"{1000 * full['seconds'][name]:.2f}" for name in ("hbm", "ici"))]
    cells.append(str(sum(each["count"] for each in plan["collectives"])))
    cells += [f"{1000 * full['seconds'][name]:.2f}" for name in ("exposed", "latency", "scheduled")]
    for step in (full, half):
        cells += [f"{step['tokens_per_second']:.0f}", f"{step['tokens_per_second_per_chip']:.0f}"]
        cells.append(f"{step['roofline_share']:.0%}")
    return cells


def mesh_of(plan: dict[str, Any]) -> str:
    """Describe the mesh by its axes larger than 1."""
    return " x ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1) or "1"


def markdown(rows: list[list[str]]) -> str:
    """Format a table in Markdown; the first row is its header."""
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


if __name__ == "__main__":
    main()
