"""Runs small enough for tests, by one process or several; what they start from are fixtures in conftest.py."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from s1_jax import train
from s1_jax.records.lines import read_records
from s1_jax.records.setting import record_key

PROJECT = Path(__file__).resolve().parents[1]
EXAMPLES, BATCH, EPOCHS = 40, 16, 2
STEPS = EPOCHS * 3  # 16 + 16 + 8 examples an epoch
BASE = files("s1_jax") / "assets" / "tiny_base"
DEVICES = 4  # of all processes of a run
MAIN = "from {0} import main\nfrom s1_jax.runtime.cli import run_main\nrun_main(main)"
MESH = ("--mesh.fsdp", "2", "--mesh.tensor", "2", "--data.micro-batch-rows", "4")
ALONE = ("--mesh.fsdp", "4", "--mesh.tensor", "2", "--data.micro-batch-rows", "4")  # all devices of this process
LOSS_TOLERANCE = 1e-5  # relative: between processes, and on another mesh, sums are made in another order
PATIENCE = 600  # seconds; it only ends a test that hangs, however busy the machine is
SWEEP = [
    *(str(PROJECT / "configs" / "quickstart_sweep.py"), "--model.path", str(BASE), "--task.limit", "12"),
    *("--sweep.max-thinking-tokens", "4", "16", "--max-answer-tokens", "4", "--batch-size", "4"),
]


def options(start: Path, run_dir: Path, *more: str) -> list[str]:
    """The quickstart's config, cut to the size of a test."""
    return [
        *(str(PROJECT / "configs" / "quickstart_sft.py"), "--run-dir", str(run_dir)),
        *("--model.path", str(start / "model"), "--data.path", str(start / "examples.jsonl")),
        *("--data.max-length", "512", "--data.micro-batch-rows", "8", "--data.batch-examples", str(BATCH)),
        *("--train.epochs", str(EPOCHS), "--checkpoint.every-steps", "2", *more),
    ]


def rows(run_dir: Path) -> list[dict]:
    path = run_dir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(process: subprocess.Popen, run_dir: Path, step: int, saved: int | None = None) -> None:
    """Until the row of `step` is written and, a save takes its own time, the checkpoint of `saved` too."""
    deadline = time.time() + PATIENCE

    def there() -> bool:
        done = bool(rows(run_dir)) and rows(run_dir)[-1]["step"] >= step
        return done and (saved is None or (run_dir / "checkpoints" / str(saved)).exists())

    while not there() and process.poll() is None:
        assert time.time() < deadline, "the run makes no steps"
        time.sleep(0.02)


def gate(function: str, call: int, go: Path) -> str:
    """Code for `Team` or `started` that makes this call of `module:function` wait, once done, until `go` exists.

    A test that sends a signal into a run opens the gate after that, so the run cannot end before the signal comes.
    """
    module, _, names = function.partition(":")
    *owners, name = names.split(".")
    return f"""
import functools, importlib, itertools, os, time

def closed(real, calls=itertools.count(1)):
    @functools.wraps(real)
    def gated(*args, **kwargs):
        result, number = real(*args, **kwargs), next(calls)
        while number == {call} and not os.path.exists({str(go)!r}):
            time.sleep(0.01)
        return result
    return gated

owner = functools.reduce(getattr, {owners!r}, importlib.import_module({module!r}))
setattr(owner, {name!r}, closed(getattr(owner, {name!r})))
"""


class Team:
    """`count` processes of one run; those in `first` run some code of their own before."""

    def __init__(
        self,
        count: int,
        arguments: list[str],
        module: ModuleType = train,
        first: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        env = dict(os.environ, JAX_NUM_CPU_DEVICES=str(DEVICES // count), JAX_DEFAULT_MATMUL_PRECISION="float32")
        env |= {"PYTHONPATH": str(PROJECT), "JAX_PLATFORMS": "cpu"}
        pipes: dict[str, Any] = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.members = [
            subprocess.Popen(
                [
                    *(sys.executable, "-c", f"{first.get(index, '')}\n{MAIN.format(module.__name__)}"),
                    *(*arguments, "--hosts.processes", f"localhost:{port},{count},{index}"),
                ],
                env=env,
                cwd=PROJECT,
                **pipes,
            )
            for index in range(count)
        ]

    def ends(self, seconds: float = PATIENCE) -> tuple[list[int], list[str], list[str]]:
        """Exit codes, outputs and errors, once all have ended."""
        deadline = time.time() + seconds
        try:
            said = [member.communicate(timeout=max(deadline - time.time(), 0.1)) for member in self.members]
        finally:
            for member in self.members:
                member.kill()
        return [member.returncode for member in self.members], [out for out, _ in said], [err for _, err in said]


def assert_same_run(run_dir, wanted):
    made, expected = ([row["loss"] for row in rows(folder)] for folder in (run_dir, wanted))
    np.testing.assert_allclose(made, expected, rtol=LOSS_TOLERANCE)
    tensors, expected = (load_file(folder / "hf" / "model.safetensors") for folder in (run_dir, wanted))
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)


def records_by_key(run_dir):
    records = read_records(run_dir / "records.jsonl")
    assert len({record_key(record) for record in records}) == len(records)
    return {record_key(record): record for record in records}
