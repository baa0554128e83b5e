"""Plans every TPU config shipped and writes the table of docs/plan.md.

    python scripts/plan_table.py --lengths LENGTHS.json [--only s1_32b_v5p64 ...] [--write docs/plan.md]

Each row is one `python -m s1_jax.plan ... --json`; results are kept in runs/plan/, so a stopped table goes on where it
was. LENGTHS.json holds the token counts of s1's 1,000 examples (a list, or as `--lengths` of the plan takes it).
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
# 16 x 32,768 tokens, all rows in one go
FULL = ["--full", "--data.max-length", "32768", "--data.row-lengths", "32768", "--data.micro-batch-rows", "16"]
WIDE = ["--mesh.fsdp", "8", "--mesh.context", "1"]  # as MaxText's figures for the same step are
# config, slice, and for a "full" row what it changes
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
HEAD = ("config", "slice", "step", "mesh", "remat", "GiB a chip", "of HBM", "FLOPs x model", "compute", "HBM", "ICI")
HEAD += ("minutes", "overlapped", "chip-hours", "MFU")


def main() -> None:
    """Plans what is not planned yet, then writes or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", required=True, type=Path, help="JSON file of token counts, one an example")
    parser.add_argument("--only", nargs="*", help="plan only these configs")
    parser.add_argument("--kept", type=Path, default=PROJECT / "runs" / "plan", help="where results are kept")
    parser.add_argument(
        "--write", type=Path, help="put the table between the marks of this file instead of printing it"
    )
    options = parser.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (config, topology, full) in enumerate(ROWS, start=1):
        kept = options.kept / f"{number:02}_{config}.json"
        if not kept.exists() and (options.only is None or config in options.only):
            started = time.perf_counter()
            print(f"{number}/{len(ROWS)} {config}{' full' if full else ''} ...", file=sys.stderr, flush=True)
            kept.write_text(json.dumps(plan(config, topology, full, options.lengths)))
            print(f"    {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        if kept.exists():
            rows.append(row(config, topology, full, json.loads(kept.read_text())))
    table = markdown([HEAD, *rows])
    if options.write is None:
        print(table)
        return
    before, mark, rest = options.write.read_text().partition("<!-- table -->\n")
    _, end, after = rest.partition("<!-- end -->")
    options.write.write_text(before + mark + table + end + after)


def plan(config: str, topology: str, full: list[str] | None, lengths: Path) -> dict[str, Any]:
    """One plan as a dict, with the remat policy that was planned."""
    change = full or ["--lengths", str(lengths.resolve())]
    command = [sys.executable, "-m", "s1_jax.plan", f"configs/{config}.py", "--topology", topology, "--json", *change]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}")
    return json.loads(done.stdout) | {"remat": option(config, full, "--model.remat")}


def option(config: str, full: list[str] | None, name: str) -> str:
    """The value the planned run has for a string option of its model."""
    if full and name in full:
        return full[full.index(name) + 1]
    from s1_jax.cli import load_config

    return getattr(load_config(PROJECT / "configs" / f"{config}.py").model, name.rsplit(".", 1)[1])


def row(config: str, topology: str, full: list[str] | None, plan: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    memory, times, run = plan["hbm_gib"], plan["seconds"], plan["run"]
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1) or "1"
    cells = [config, topology, "full" if full else "real", mesh, plan["remat"], f"{memory['total']:.1f}"]
    cells.append(f"{memory['total'] / memory['capacity']:.0%}" + ("" if plan["fits"] else ", does not fit"))
    if not plan["fits"]:
        return (*cells, *[""] * (len(HEAD) - len(cells)))
    cells.append(f"{plan['flops']['ratio']:.3f}")
    cells += [f"{times[name]:.2f}" for name in ("compute", "hbm", "ici")]
    if full:  # one step, not a run
        return (*cells, "", "", "", f"{plan['mfu']:.0%}")
    minutes = [f"{run[name]:.1f}" for name in ("minutes_no_overlap", "minutes_overlap", "chip_hours")]
    return (*cells, *minutes, f"{plan['mfu']:.0%}")


def markdown(rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown; the first row is its head."""
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


if __name__ == "__main__":
    main()
