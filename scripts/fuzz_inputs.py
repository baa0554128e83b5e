"""Run every command on thousands of inputs that are almost valid, and check how it ends.

    python scripts/fuzz_inputs.py --inputs 2000 --seed 0
    python scripts/fuzz_inputs.py --again runs/fuzz/17/case.json

An input is a valid one with a change in options, config files, JSONL of data, prompts and problems, records and
config.json of a run, a model's config.json, its safetensors and tokenizer, or replies of an endpoint. A command must
end with exit code 0, 1, 2, 75 or 130, with one line of error if it fails and without a traceback, within limits of time
and memory, and without terminal control characters in its output. One process runs many inputs through `main()`, and a
few inputs get their own process. Inputs that fail are saved in a folder (--failures) and can be run again. The same
seed and number give the same input. On 2 cores, 2,000 inputs take about ten minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fuzz.cases import Case, Maker
from fuzz.running import CODES, ENVIRONMENT, Result, Worker, run_alone, work
from fuzz.valid import make_base

KEPT = 20  # folders of inputs that are kept for a while


def keep(base: Path, target: Path, seed: int, number: int, result: Result) -> None:
    """Write an input that failed, without links, and its output."""
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        case = Maker(base, Path(folder) / "case", seed, number).make()
        shutil.copytree(Path(folder) / "case", target)
    about = {"seed": seed, "number": number, "why": result.why, **dataclasses.asdict(case)}
    (target / "case.json").write_text(json.dumps(about, indent=1) + "\n")
    (target / "said.txt").write_text(result.out + result.err, errors="surrogateescape")


def again(files: Sequence[str]) -> int:
    """Run saved inputs in their own processes; return 1 if one still fails."""
    failed = 0
    for name in files:
        about = json.loads(Path(name).read_text())
        case = Case(**{field.name: about[field.name] for field in dataclasses.fields(Case)})
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(Path(name).parent, Path(folder) / "case")
            result = run_alone(Path(folder) / "case", case)
        failed += result.why is not None
        print(f"{name}: python -m s1_jax.{case.command} {' '.join(map(ascii, case.argv))}")
        print(f"{result.err[-3000:]}exit code {result.code}: {result.why or 'as expected'}\n", flush=True)
    return int(failed > 0)


def table(ended: Counter[tuple[str, str, str]]) -> str:
    """Format a table of inputs by kind and command, and how they ended."""
    from s1_jax.runtime.tables import align

    endings = [*(f"exit {code}" for code in CODES), "failed"]
    groups = sorted({key[:2] for key in ended})
    rows = [[kind, command, *(str(ended[kind, command, one] or "") for one in endings)] for kind, command in groups]
    total = ["all", "", *(str(sum(n for (*_, how), n in ended.items() if how == one)) for one in endings)]
    rows = [[*row[:2], str(sum(map(int, filter(None, row[2:])))), *row[2:]] for row in [*rows, total]]
    return align([["input", "command", "inputs", *endings], *rows])


def main() -> None:
    """Print a line for each input that fails, and a table; the exit code is 1 if one failed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--inputs", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--first", type=int, default=0, help="number of the first input")
    options.add_argument("--only", help="kind of input, as named in the table")
    options.add_argument("--verbose", action="store_true", help="print the last line of every input's standard error")
    options.add_argument("--failures", default="runs/fuzz", help="folder for inputs that fail")
    options.add_argument("--again", nargs="+", metavar="FILE", help="case.json of inputs that failed, to be run again")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.worker:
        work()
        return
    if asked.again:
        sys.exit(again(asked.again))
    os.environ |= ENVIRONMENT
    worker, ended, slowest, began = Worker(), Counter[tuple[str, str, str]](), (0.0, ""), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        base = Path(folder) / "base"
        make_base(base)
        print(f"valid inputs made in {time.monotonic() - began:.0f} s", flush=True)
        for number in range(asked.first, asked.first + asked.inputs):
            here = Path(folder) / str(number)
            case = Maker(base, here, asked.seed, number).make()
            if asked.only not in (None, case.kind):
                shutil.rmtree(here)
                continue
            result = run_alone(here, case) if case.own else worker.run(here, case)
            slowest = max(slowest, (result.seconds, f"input {number}, {case.kind}, {case.command}"))
            ended[case.kind, case.command, "failed" if result.why else f"exit {result.code}"] += 1
            if asked.verbose:
                print(
                    f"{number} {case.kind}, {case.command}: {result.code} {(result.err.splitlines() or [''])[-1][:300]}"
                )
            if result.why:
                print(f"input {number} ({case.kind}, {case.command}): {result.why}", flush=True)
                keep(base, Path(asked.failures) / str(number), asked.seed, number, result)
            # not deleted at once: threads of libraries may still use it, and would print errors during the next input
            shutil.rmtree(Path(folder) / str(number - KEPT), ignore_errors=True)
        worker.close()
    failed = sum(count for (*_, how), count in ended.items() if how == "failed")
    print(f"\n{table(ended)}\nslowest: {slowest[0]:.0f} s, {slowest[1]}")
    print(f"{ended.total()} inputs in {time.monotonic() - began:.0f} s, {failed} failed", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
