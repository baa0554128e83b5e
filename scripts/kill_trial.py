"""Kill every command at random moments, fill its disk, and check that resumed runs have the same results.

    python scripts/kill_trial.py
    python scripts/kill_trial.py --commands train --kills 20 --processes 2

Each command first runs undisturbed. Then it is started repeatedly: `--kills` times it is ended with SIGKILL, SIGTERM or
SIGINT at a random moment, and `--full-disks` times its folder is on a disk that is too small and then grows (a tmpfs if
this machine allows mounts, else a limit on file sizes). Finally the same command runs to its end. Its outputs must
equal the undisturbed ones: files byte by byte, records as a set. In training, one of several processes is ended. The
counts are printed as a table. The exit code is 1 if outputs differ, a start ends in a traceback, or a full disk does
not give a one-line error. On 2 cores, a kill takes about a minute for a command that loads a model, less for others.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from s1_jax.data.synthetic import generate_examples

PROJECT = Path(__file__).resolve().parents[1]
BASE = PROJECT / "s1_jax" / "assets" / "tiny_base"
EXPECTED = {"SIGTERM": 75, "SIGINT": 130}  # exit codes; 0 is valid if the command was about to end
LOST = 70  # exit code of a process whose peer is gone
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)  # with these frequencies
EXAMPLES, PROBLEMS, PROMPTS, QUESTIONS = 96, 48, 64, 400
DEVICES = 4  # simulated devices of all processes of a training run
PATIENCE = 600.0  # seconds after which a command that does not end counts as failed
MOST_STARTS = 5  # starts within which a command without further kills must finish
TRACEBACK = "Traceback (most recent call last)"
CONFIGS = PROJECT / "configs"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One command: its arguments for an output folder, and how its output is read for comparison."""

    argv: Callable[[Path], list[str]]
    made: Callable[[Path], Any]
    prepare: Callable[[Path], object] = lambda out: out.mkdir(parents=True, exist_ok=True)
    finished: Callable[[Path, str], bool] = lambda out, said: False  # must not be started again then


# Commands


def trials(inputs: Path) -> dict[str, Trial]:
    """Return a trial of every command, with its inputs made in `inputs`."""
    sweep = [str(CONFIGS / "quickstart_sweep.py"), "--model.path", str(BASE), "--task.limit", str(PROBLEMS)]
    sweep += ["--sweep.max-thinking-tokens", "8", "24", "--max-answer-tokens", "6", "--batch-size", "8"]
    training = [str(CONFIGS / "quickstart_sft.py"), "--data.path", str(inputs / "examples.jsonl")]
    training += ["--data.batch-examples", "8", "--data.micro-batch-rows", "4", "--train.epochs", "6"]
    training += ["--mesh.fsdp", str(DEVICES), "--checkpoint.every-steps", "3", "--hosts.lost-after-seconds", "10"]
    prompts = ["--model.path", str(BASE), "--input", str(inputs / "prompts.jsonl"), "--max-answer-tokens", "16"]
    return {
        "train": Trial(lambda out: [*training, "--run-dir", str(out / "run")], trained),
        "evaluate": Trial(lambda out: [*sweep, "--run-dir", str(out / "run")], evaluated),
        "generate": Trial(lambda out: [*prompts, "--output", str(out / "records.jsonl")], files_of("records.jsonl")),
        "curate": Trial(lambda out: [str(inputs / "curate.py"), "--run-dir", str(out / "run")], curated),
        "convert": Trial(
            lambda out: ["--source", str(BASE), "--target", str(out / "orbax")],
            converted,
            finished=lambda out, said: f"{out / 'orbax'} exists" in said,
        ),
        "grade": Trial(
            lambda out: [str(out / "run")], evaluated, lambda out: shutil.copytree(inputs / "run", out / "run")
        ),
    }


CURATION = """
from s1_jax.config.curate import *

def get_config():
    who = dict(base_url="http://127.0.0.1:PORT/v1", concurrent=4, requests_per_minute=10**6)
    return CurateConfig(
        tokenizer="BASE",
        collect=CollectConfig(sources=("synthetic",), limit=QUESTIONS),
        decontaminate=DecontaminateConfig(tasks=("synthetic",), words=16, near_duplicates=None),
        generate=GenerateStageConfig(EndpointConfig("teacher", **who), (EndpointConfig("solver", **who),)),
        select=SelectConfig(method="random", size=50),
    )
"""


def teacher() -> int:
    """Start an endpoint in this process, with slow answers that depend only on the prompts; return its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"]))
            prompt = json.loads(asked)["messages"][0]["content"]
            time.sleep(0.02)
            message = {"content": f"Answer: {len(prompt)}", "reasoning_content": "step " * len(prompt)}
            body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:  # the client was killed
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def make_inputs(inputs: Path) -> None:
    """Write examples, prompts, a curation config with an endpoint, and the folder of a sweep to grade."""
    inputs.mkdir()
    config = CURATION.replace("PORT", str(teacher())).replace("BASE", str(BASE)).replace("QUESTIONS", str(QUESTIONS))
    (inputs / "curate.py").write_text(config)
    examples = "".join(json.dumps(row) + "\n" for row in generate_examples(0, EXAMPLES))
    (inputs / "examples.jsonl").write_text(examples)
    prompts = [json.dumps({"id": i, "prompt": f"{i} + {i} ="}) + "\n" for i in range(PROMPTS)]
    (inputs / "prompts.jsonl").write_text("".join(prompts))
    sweep = trials(inputs)["evaluate"]
    sweep.prepare(inputs)
    run(sweep, "evaluate", inputs)


def trained(out: Path) -> Any:
    """Read parameters, config and the loss of every step."""
    lines = (out / "run" / "metrics.jsonl").read_text().splitlines()
    return files_of("run/hf/model.safetensors", "run/hf/config.json")(out), [json.loads(x)["loss"] for x in lines]


def evaluated(out: Path) -> Any:
    """Read the records as a set without duplicates, and the summary without costs that depend on restarts."""
    lines = (out / "run" / "records.jsonl").read_text().splitlines()
    summary = json.loads((out / "run" / "summary.json").read_text())
    assert len(set(lines)) == len(lines), "a record twice"
    assert (out / "run" / "report.html").stat().st_size
    return sorted(lines), {name: value for name, value in summary.items() if name != "cost"}


def curated(out: Path) -> Any:
    """Read the data set's rows and card, and the models' answers as a set without duplicates."""
    table = pq.read_table(out / "run" / "dataset" / "data" / "train-00000-of-00001.parquet")
    answers = {}
    for path in (out / "run" / "answers").glob("*.jsonl"):
        keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
        assert len(set(keys)) == len(keys), "an answer twice"
        answers[path.name] = sorted(keys)
    return table.to_pylist(), answers


def converted(out: Path) -> Any:
    """Read the parameters, the config and the tokenizer of an Orbax folder."""
    back = out / "back"
    shutil.rmtree(back, ignore_errors=True)
    argv = [sys.executable, "-m", "s1_jax.convert", "--source", str(out / "orbax"), "--target", str(back)]
    subprocess.run(argv, check=True, cwd=PROJECT, env=environment(1), capture_output=True)
    return files_of(*(f"back/{path.name}" for path in back.iterdir()))(out), sorted(p.name for p in out.iterdir())


def files_of(*names: str) -> Callable[[Path], Any]:
    """Return a function that computes the digests of these files."""
    return lambda out: {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}


# Runs


def environment(processes: int) -> dict[str, str]:
    """Return the environment variables of a process."""
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(DEVICES // processes), "MPLBACKEND": "Agg"}


def start(
    trial: Trial, command: str, out: Path, processes: int, largest: int | None = None
) -> list[subprocess.Popen[str]]:
    """Start the processes of a command; files may have at most `largest` bytes."""
    hosts: list[list[str]] = [[]]
    if command == "train":
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        hosts = [["--hosts.processes", f"localhost:{port},{processes},{i}"] for i in range(processes)]
        hosts = hosts if processes > 1 else [[]]

    def limited() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return [
        subprocess.Popen(
            [sys.executable, "-m", f"s1_jax.{command}", *trial.argv(out), *of_host],
            env=environment(processes if command == "train" else 1),
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=limited,
        )
        for of_host in hosts
    ]


def handles_signals(process: int) -> bool:
    """Return whether a process already handles SIGTERM, as a command does from its first line on."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return False
    caught = int(next(line for line in lines if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def ends(team: Sequence[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """Return exit codes and standard error. Raises TimeoutExpired if a process does not end."""
    try:
        said = [member.communicate(timeout=PATIENCE)[1] for member in team]
    finally:
        for member in team:
            member.kill()
    return [member.returncode for member in team], "".join(said)


def run(trial: Trial, command: str, out: Path, processes: int = 1) -> float:
    """Run a command to its end, restarting it when it asks for that; return the seconds it took."""
    began = time.monotonic()
    for _ in range(MOST_STARTS):
        codes, said = ends(start(trial, command, out, processes))
        if not any(codes) or trial.finished(out, said):
            return time.monotonic() - began
        assert TRACEBACK not in said, said
    raise AssertionError(f"{command} does not end: {codes} {said[-2000:]}")


@dataclasses.dataclass
class Tally:
    """Counts of what happened to one command."""

    kinds: Counter[str] = dataclasses.field(default_factory=Counter)  # signals and full disks
    codes: Counter[int] = dataclasses.field(default_factory=Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)
    same: int = 0  # comparisons with equal outputs
    compared: int = 0

    def note(self, kind: str, codes: Sequence[int], said: str) -> None:
        """Count a start that was disturbed, and check its exit."""
        self.kinds[kind] += 1
        self.codes.update(codes)
        lost = LOST in codes  # a peer of the killed process; JAX prints its own messages before our line
        if TRACEBACK in said and kind != "before main()" and not lost:
            self.wrong.append(f"a traceback after {kind}: {said[-1500:]}")

    def compare(self, trial: Trial, out: Path, wanted: Any) -> None:
        """Compare the output of a finished run with the undisturbed one."""
        self.compared += 1
        try:
            same = trial.made(out) == wanted
        except (OSError, ValueError, LookupError, AssertionError) as error:
            same = False
            self.wrong.append(f"outputs cannot be read: {error!r}")
        self.same += same
        if not same:
            self.wrong.append("outputs differ")


def kills(
    trial: Trial, command: str, folder: Path, asked: argparse.Namespace, seconds: float, wanted: Any, tally: Tally
) -> None:
    """Kill starts on one folder at random moments, then let the command run to its end."""
    draws, out = random.Random(f"{asked.seed} {command}"), folder / "killed"
    trial.prepare(out)
    for _ in range(asked.kills):
        team, began = start(trial, command, out, asked.processes), time.monotonic()
        victim, number = draws.choice(team), draws.choice(SIGNALS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            victim.wait(draws.uniform(asked.earliest, max(seconds, asked.earliest + 1)))
        kind = number.name if victim.poll() is None else "ended before"
        if kind in EXPECTED and not handles_signals(victim.pid):
            kind = "before main()"  # while Python starts, before the command can handle signals
        if kind == "ended before":  # faster than before, with compiled programs or an idle machine
            seconds = min(seconds, time.monotonic() - began)
        victim.send_signal(number)
        codes, said = ends(team)
        tally.note(kind, codes, said)
        if kind in EXPECTED and victim.returncode not in (EXPECTED[kind], 0):
            tally.wrong.append(f"{kind} gives exit code {victim.returncode}: {said[-300:]}")
        print(f"{command}: {kind}, exit codes {codes}: {(said.strip().splitlines() or [''])[-1][:150]}", flush=True)
        if trial.finished(out, said) or not any(codes):  # begin again with an empty folder
            tally.compare(trial, out, wanted)
            shutil.rmtree(out)
            trial.prepare(out)
    run(trial, command, out, asked.processes)
    tally.compare(trial, out, wanted)


def full_disks(
    trial: Trial, command: str, folder: Path, asked: argparse.Namespace, needed: int, wanted: Any, tally: Tally
) -> None:
    """Run on disks that are too small, and again after they have grown."""
    draws = random.Random(f"{asked.seed} {command} disk")
    for number in range(asked.full_disks):
        mount_point = folder / f"disk-{number}"
        mount_point.mkdir()
        with disk(mount_point) as resize:
            out = mount_point / "out"
            trial.prepare(out)
            before = _bytes_of(out)
            share = draws.uniform(0.02, 0.9)
            largest = None
            if resize is None:
                largest = int(share * needed)
            else:
                resize(before + int(share * needed))
            codes, said = ends(start(trial, command, out, asked.processes, largest))
            last = (said.strip().splitlines() or [""])[-1]
            tally.note("full disk" if any(codes) else "disk was enough", codes, said)
            if any(codes) and not (set(codes) <= {0, 1, 70} and "error: " in said):
                tally.wrong.append(f"a full disk does not give a one-line error: {codes} {last[:300]}")
            print(f"{command}: disk of {share:.0%}, exit codes {codes}: {last[:150]}", flush=True)
            if resize is not None:
                resize(2**30)
            run(trial, command, out, asked.processes)
            tally.compare(trial, out, wanted)
        shutil.rmtree(mount_point, ignore_errors=True)


def disturb(trial: Trial, command: str, here: Path, asked: argparse.Namespace, tally: Tally) -> None:
    """Run one command undisturbed, killed, and on full disks. Raises AssertionError if it does not end."""
    undisturbed = here / "undisturbed"
    trial.prepare(undisturbed)
    before = _bytes_of(undisturbed)
    seconds = run(trial, command, undisturbed, asked.processes)
    needed = _bytes_of(undisturbed) - before
    wanted = trial.made(undisturbed)
    print(f"{command}: undisturbed {seconds:.0f} s, {needed / 1e6:.1f} MB", flush=True)
    kills(trial, command, here, asked, seconds, wanted, tally)
    full_disks(trial, command, here, asked, max(needed, 2**16), wanted, tally)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def disk(mount_point: Path) -> Iterator[Callable[[int], None] | None]:
    """Mount a tmpfs at a folder and yield a function that resizes it; None if this machine does not allow it."""

    def mount(*options: str) -> bool:
        return subprocess.run(["mount", *options, str(mount_point)], capture_output=True).returncode == 0

    if shutil.which("mount") is None or not mount("-t", "tmpfs", "-o", f"size={2**30}", "tmpfs"):
        yield None
        return
    try:
        yield lambda size: print("the disk cannot be resized") if not mount("-o", f"remount,size={size}") else None
    finally:
        subprocess.run(["umount", str(mount_point)], check=False, capture_output=True)


def table(tallies: dict[str, Tally]) -> str:
    """Format a table of what happened to each command."""
    from s1_jax.runtime.tables import align

    kinds = [*dict.fromkeys(number.name for number in SIGNALS), "before main()", "ended before", "full disk"]
    kinds.append("disk was enough")
    rows = [
        [
            *(command, *(str(tally.kinds[kind] or "") for kind in kinds)),
            *(", ".join(f"{count}x {code}" for code, count in sorted(tally.codes.items())), str(len(tally.wrong))),
            f"{tally.same} of {tally.compared}",
        ]
        for command, tally in tallies.items()
    ]
    return align([["command", *kinds, "exit codes", "wrong", "same outputs"], *rows])


def main() -> None:
    """Print a line for each start, the errors and a table; the exit code is 1 if there are errors."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(trials(Path()))
    options.add_argument("--commands", nargs="+", choices=names, default=names)
    options.add_argument("--kills", type=int, default=5, help="kills of each command")
    options.add_argument("--full-disks", type=int, default=2, help="full disks for each command")
    options.add_argument("--processes", type=int, default=2, help="processes of a training run")
    options.add_argument("--earliest", type=float, default=0.5, help="least seconds between a start and its kill")
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        inputs = Path(folder) / "inputs"
        make_inputs(inputs)
        for command in asked.commands:
            here, tally = Path(folder) / command, tallies.setdefault(command, Tally())
            try:
                disturb(trials(inputs)[command], command, here, asked, tally)
            except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
                tally.wrong.append(str(error))
            for line in tally.wrong:
                print(f"{command}: WRONG: {line}", flush=True)
            shutil.rmtree(here, ignore_errors=True)
    print(f"\n{table(tallies)}")
    sys.exit(any(tally.wrong for tally in tallies.values()))


if __name__ == "__main__":
    main()
