"""Kills a run of several processes at random moments, again and again, and sets what is left beside an undisturbed run.

    python scripts/kill_trial.py --kills 20 --processes 2

Each time one process, drawn at random, gets SIGKILL, or with one chance in four SIGTERM, at a moment drawn from late in
its start to some seconds into its steps; then the same command starts the run again, at last until it is finished. What
each kill cost is printed, and parameters and losses are compared bit by bit. 2 cores, about half a minute a kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
EXAMPLES, EPOCHS, EVERY = 96, 12, 3  # 8 examples a step: 144 steps, a checkpoint every third
LATEST = 6.0  # seconds after the first step at which a kill comes
DEVICES = 4  # simulated, of all processes together
LOST_AFTER, START = 10, 20  # seconds


def main() -> None:
    """Trains once undisturbed and once with kills; prints the figures, exit code 1 where the two differ."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    draws = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        examples = Path(folder) / "examples.jsonl"
        make = [sys.executable, str(PROJECT / "scripts" / "make_quickstart_data.py"), "--output", str(examples)]
        subprocess.run([*make, "--examples", str(EXAMPLES)], check=True, stdout=subprocess.DEVNULL)
        undisturbed, disturbed = Path(folder) / "undisturbed", Path(folder) / "disturbed"
        began, team = time.time(), start(asked.processes, examples, undisturbed)
        while not losses(undisturbed):
            time.sleep(0.1)
        starting = time.time() - began
        assert wait(team) == [0] * asked.processes
        print(
            f"undisturbed: {len(losses(undisturbed))} steps in {time.time() - began:.0f} s, "
            f"the first after {starting:.0f} s"
        )
        kinds, most = Counter[str](), 0
        for _ in range(asked.kills):
            kind, lost, said = one_kill(draws, asked.processes, examples, disturbed, starting + LATEST)
            kinds[kind], most = kinds[kind] + 1, max(most, lost)
            print(f"kill {kinds.total()}: {said}", flush=True)
        print(", ".join(f"{count} {kind}" for kind, count in kinds.items()) + f"; at most {most} steps lost by one")
        starts = 0
        while not (disturbed / "hf" / "config.json").exists():
            starts += 1
            assert starts < 5, "the run does not end"
            wait(start(asked.processes, examples, disturbed))
        same = all(
            (undisturbed / "hf" / name).read_bytes() == (disturbed / "hf" / name).read_bytes()
            for name in ("model.safetensors", "config.json")
        )
        same_losses = losses(undisturbed) == losses(disturbed)
        print(f"parameters the same bits: {same}; losses of all steps the same: {same_losses}")
        sys.exit(not (same and same_losses))


def one_kill(
    draws: random.Random, processes: int, examples: Path, run_dir: Path, latest: float
) -> tuple[str, int, str]:
    """Starts the run and ends one of its processes: the signal, the steps that cost, and a line that says it."""
    before = saved(run_dir)
    team = start(processes, examples, run_dir)
    victim, hard = draws.randrange(processes), draws.random() < 0.75
    time.sleep(draws.uniform(latest / 3, latest))
    team[victim].send_signal(signal.SIGKILL if hard else signal.SIGTERM)
    reached = len(losses(run_dir))
    codes = wait(team)
    kept = saved(run_dir)
    assert kept >= before, "an earlier checkpoint is gone"
    name = "SIGKILL" if hard else "SIGTERM"
    lost = max(reached - kept, 0)
    return name, lost, f"{name} to process {victim} at step {reached}, exit codes {codes}, kept step {kept}"


def start(processes: int, examples: Path, run_dir: Path) -> list[subprocess.Popen[bytes]]:
    """The processes of the run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = dict(os.environ, JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES=str(DEVICES // processes))
    command = [sys.executable, "-m", "s1_jax.train", str(PROJECT / "configs" / "quickstart_sft.py")]
    command += ["--run-dir", str(run_dir), "--data.path", str(examples), "--data.batch-examples", "8"]
    command += ["--data.micro-batch-rows", "4", "--mesh.fsdp", str(DEVICES), "--train.epochs", str(EPOCHS)]
    command += ["--checkpoint.every-steps", str(EVERY), "--hosts.lost-after-seconds", str(LOST_AFTER)]
    command += ["--hosts.start-seconds", str(START)]
    return [
        subprocess.Popen(
            [*command, "--hosts.processes", f"localhost:{port},{processes},{index}"],
            env=env,
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for index in range(processes)
    ]


def wait(team: list[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes; a process that the loss of another does not end within minutes is a failure."""
    return [member.wait(timeout=300) for member in team]


def losses(run_dir: Path) -> list[float]:
    """Of each step in metrics.jsonl, whole lines alone."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["loss"] for line in lines if line.endswith("\n")]


def saved(run_dir: Path) -> int:
    """The newest checkpoint's step, 0: none."""
    folder = run_dir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


if __name__ == "__main__":
    main()
