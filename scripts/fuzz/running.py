"""Runners of inputs, each in its own process or many in one, with checks of how the command ended."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from fuzz.cases import PROJECT, Case

CODES = (0, 1, 2, 75, 130)
LIMIT = 90.0  # seconds that one input may take
MEMORY = 6 * 2**30  # bytes that one input may use
INPUTS_OF_A_WORKER = 250  # inputs after which the worker is restarted, as compiled programs and more pile up
TRACEBACK = "Traceback (most recent call last)"
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "MPLBACKEND": "Agg",
    "TOKENIZERS_PARALLELISM": "false",
    "S1_JAX_FUZZ_KEY": "sk-fuzz-0123456789",
    "NO_PROXY": "*",
}


@dataclasses.dataclass
class Result:
    """Result of running one input."""

    code: int | None
    out: str
    err: str
    seconds: float
    why: str | None = None  # what is wrong with it


def start(folder: Path, command: str, argv: Sequence[str]) -> subprocess.Popen[str]:
    """Start the command in its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", f"s1_jax.{command}", *argv],
        cwd=folder,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
    )


def run_alone(folder: Path, case: Case) -> Result:
    """Run an input in its own process."""
    began = time.monotonic()
    with endpoint(folder) as port, start(folder, case.command, with_port(case.argv, port)) as process:
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            return Result(None, *process.communicate(), LIMIT, f"no end after {LIMIT:.0f} s")
    seconds = time.monotonic() - began
    return Result(process.returncode, out, err, seconds, mistake(process.returncode, out, err))


class Worker:
    """Process that runs many inputs, restarted after one that it did not survive."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ran = 0

    def run(self, folder: Path, case: Case) -> Result:
        """Run an input in the worker and return its result."""
        if self._process is None or self._ran >= INPUTS_OF_A_WORKER:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, str(PROJECT / "scripts" / "fuzz_inputs.py"), "--worker"],
                env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(PROJECT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._ran = 0
        process, self._ran, began = self._process, self._ran + 1, time.monotonic()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"folder": str(folder), **dataclasses.asdict(case)}).encode() + b"\n")
        process.stdin.flush()
        while not select.select([process.stdout], [], [], 0.5)[0]:
            seconds = time.monotonic() - began
            why = f"no end after {LIMIT:.0f} s" if seconds > LIMIT else None
            if _memory(process.pid) > MEMORY:
                why = f"more than {MEMORY // 2**30} GiB of memory"
            if why:
                process.send_signal(signal.SIGABRT)  # faulthandler prints where it is
                process.wait()
                self._process = None
                return Result(None, *_said(folder), seconds, why)
        line = process.stdout.readline()
        if not line:
            code, self._process = process.wait(), None
            return Result(code, *_said(folder), time.monotonic() - began, f"the process was ended by {-code}")
        code, (out, err) = json.loads(line), _said(folder)
        return Result(code, out, err, time.monotonic() - began, mistake(code, out, err))

    def close(self) -> None:
        """End the worker's process, if it runs."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None


def work() -> None:
    """Run the worker, which reads one input per line and replies with its exit code."""
    import faulthandler

    from s1_jax.runtime import cli

    results, nothing = os.fdopen(os.dup(1), "w"), os.open(os.devnull, os.O_RDONLY)
    cases = os.fdopen(os.dup(0), "r")
    os.dup2(nothing, 0)
    for line in cases:
        case = json.loads(line)
        os.chdir(case["folder"])
        for descriptor, name in ((1, "stdout.txt"), (2, "stderr.txt")):
            file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
            os.dup2(file, descriptor)
            os.close(file)
        faulthandler.enable()
        with endpoint(Path()) as port:
            module, argv = importlib.import_module(f"s1_jax.{case['command']}"), with_port(case["argv"], port)
            try:
                cli.run_main(lambda: module.main(argv))  # noqa: B023
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
            except BaseException:
                traceback.print_exc()
                code = 1
        cli.before_exit.clear()
        sys.stdout.flush()
        sys.stderr.flush()
        print(json.dumps(code), file=results, flush=True)


@contextlib.contextmanager
def endpoint(folder: Path) -> Iterator[int]:
    """Run a server that replies to any request with `reply.bin`, and yield its port; 0 without that file."""
    path = folder / "reply.bin"
    if not path.exists():
        yield 0
        return
    reply, listener = path.read_bytes(), socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                asked = b""
                while b"\r\n\r\n" not in asked and (piece := connection.recv(2**16)):
                    asked += piece
                connection.sendall(reply)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(2**16):
                    pass

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def with_port(argv: Sequence[str], port: int) -> list[str]:
    """Replace {port} in the arguments by the endpoint's port."""
    return [word.replace("{port}", str(port)) for word in argv]


def mistake(code: int, out: str, err: str) -> str | None:
    """Return what is wrong with how a command ended; None if nothing is."""
    from s1_jax.runtime.terminal import shown

    lines = [line for line in err.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    if TRACEBACK in err:
        return f"a traceback: {lines[-1][:200]}"
    if code not in CODES:
        return f"exit code {code}"
    if code in (1, 2) and len(errors) != 1:
        return f"exit code {code} with {len(errors)} lines of error"
    if code in (1, 2) and lines[-1] != errors[0]:
        return "the error is not the last line"
    if code == 0 and errors:
        return "exit code 0 with an error"
    if shown(out) != out or shown(err) != err:
        return "terminal control characters"
    return None


def _said(folder: Path) -> tuple[str, str]:
    files = (folder / name for name in ("stdout.txt", "stderr.txt"))
    out, err = (f.read_bytes().decode("utf-8", "surrogateescape") if f.exists() else "" for f in files)
    return out, err


def _memory(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
