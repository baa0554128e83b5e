"""Kills every command at random moments and fills its disk, again and again; what is left has to be what it should be.

    python scripts/kill_trial.py
    python scripts/kill_trial.py --commands train --kills 20 --processes 2

Each command runs once undisturbed. Then it is started again and again: by `--kills` it is ended with SIGKILL, SIGTERM
or SIGINT at a moment drawn from its whole length, by `--full-disks` its folder lies on a disk that is too small, which
then grows: a tmpfs where this machine lets one be mounted, else a limit on the size of a file. At last the same command
runs to its end. Its outputs have to be the undisturbed ones: files byte by byte, records as a set. Of training, one of
several processes is ended. A table has the counts; exit code 1 where outputs differ, a start ends in a traceback, or
a full disk is no line of error. 2 cores: about a minute a kill of a command that loads a model, less for the others.
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
EXPECTED = {"SIGTERM": 75, "SIGINT": 130}  # exit codes, or 0 where it was about to end
LOST = 70  # exit code of a process whose peer is gone
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)  # as often as they stand here
EXAMPLES, PROBLEMS, PROMPTS, QUESTIONS = 96, 48, 64, 400
DEVICES = 4  # simulated, of all processes of a training run together
PATIENCE = 600.0  # seconds after which a command that does not end is a failure
MOST_STARTS = 5  # until a command without further kills has to be through
TRACEBACK = "Traceback (most recent call last)"
CONFIGS = PROJECT / "configs"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A command: its arguments for a folder that it writes, and what it made there, to be compared."""

    argv: Callable[[Path], list[str]]
    made: Callable[[Path], Any]
    prepare: Callable[[Path], object] = lambda out: out.mkdir(parents=True, exist_ok=True)
    finished: Callable[[Path, str], bool] = lambda out, said: False  # where a start after the end is a mistake


# Commands


def trials(inputs: Path) -> dict[str, Trial]:
    """Every command with what it needs, made in `inputs`."""
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
    """The port of an endpoint in this process, whose answers depend on their prompts alone and take a while."""

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

        def handle_error(self, *args: object) -> None:  # who asked was killed
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def make_inputs(inputs: Path) -> None:
    """Examples, prompts, a config of curation with an endpoint, and the folder of a sweep that is graded."""
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
    """Parameters and config, and the loss of every step."""
    lines = (out / "run" / "metrics.jsonl").read_text().splitlines()
    return files_of("run/hf/model.safetensors", "run/hf/config.json")(out), [json.loads(x)["loss"] for x in lines]


def evaluated(out: Path) -> Any:
    """The records as a set, each once, and the summary without what a start costs."""
    lines = (out / "run" / "records.jsonl").read_text().splitlines()
    summary = json.loads((out / "run" / "summary.json").read_text())
    assert len(set(lines)) == len(lines), "a record twice"
    assert (out / "run" / "report.html").stat().st_size
    return sorted(lines), {name: value for name, value in summary.items() if name != "cost"}


def curated(out: Path) -> Any:
    """The data set's rows and its card, and the models' answers as a set, each once."""
    table = pq.read_table(out / "run" / "dataset" / "data" / "train-00000-of-00001.parquet")
    answers = {}
    for path in (out / "run" / "answers").glob("*.jsonl"):
        keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
        assert len(set(keys)) == len(keys), "an answer twice"
        answers[path.name] = sorted(keys)
    return table.to_pylist(), answers


def converted(out: Path) -> Any:
    """The parameters that an Orbax folder holds, its config and its tokenizer."""
    back = out / "back"
    shutil.rmtree(back, ignore_errors=True)
    argv = [sys.executable, "-m", "s1_jax.convert", "--source", str(out / "orbax"), "--target", str(back)]
    subprocess.run(argv, check=True, cwd=PROJECT, env=environment(1), capture_output=True)
    return files_of(*(f"back/{path.name}" for path in back.iterdir()))(out), sorted(p.name for p in out.iterdir())


def files_of(*names: str) -> Callable[[Path], Any]:
    """Digests of these files."""
    return lambda out: {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}


# Runs


def environment(processes: int) -> dict[str, str]:
    """That of a process."""
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(DEVICES // processes), "MPLBACKEND": "Agg"}


def start(
    trial: Trial, command: str, out: Path, processes: int, largest: int | None = None
) -> list[subprocess.Popen[str]]:
    """The processes of one start; `largest` bytes is what a file may have."""
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
    """Whether a process has a handler for SIGTERM by now, as a command has from its first line on."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return False
    caught = int(next(line for line in lines if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def ends(team: Sequence[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """Exit codes and what was said on standard error. Raises TimeoutExpired where one does not end."""
    try:
        said = [member.communicate(timeout=PATIENCE)[1] for member in team]
    finally:
        for member in team:
            member.kill()
    return [member.returncode for member in team], "".join(said)


def run(trial: Trial, command: str, out: Path, processes: int = 1) -> float:
    """Runs a command to its end, started again where it asks for that; the seconds it took."""
    began = time.monotonic()
    for _ in range(MOST_STARTS):
        codes, said = ends(start(trial, command, out, processes))
        if not any(codes) or trial.finished(out, said):
            return time.monotonic() - began
        assert TRACEBACK not in said, said
    raise AssertionError(f"{command} does not end: {codes} {said[-2000:]}")


@dataclasses.dataclass
class Tally:
    """What happened to one command."""

    kinds: Counter[str] = dataclasses.field(default_factory=Counter)  # signals and full disks
    codes: Counter[int] = dataclasses.field(default_factory=Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)
    same: int = 0  # comparisons that came out equal
    compared: int = 0

    def note(self, kind: str, codes: Sequence[int], said: str) -> None:
        """Counts a disturbed start."""
        self.kinds[kind] += 1
        self.codes.update(codes)
        lost = LOST in codes  # a peer of the one that was killed: JAX gives its own account above our line
        if TRACEBACK in said and kind != "before main()" and not lost:
            self.wrong.append(f"a traceback after {kind}: {said[-1500:]}")

    def compare(self, trial: Trial, out: Path, wanted: Any) -> None:
        """Counts a run that has ended."""
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
    """Ends starts of one folder at random moments, then lets it run to its end."""
    draws, out = random.Random(f"{asked.seed} {command}"), folder / "killed"
    trial.prepare(out)
    for _ in range(asked.kills):
        team, began = start(trial, command, out, asked.processes), time.monotonic()
        victim, number = draws.choice(team), draws.choice(SIGNALS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            victim.wait(draws.uniform(asked.earliest, max(seconds, asked.earliest + 1)))
        kind = number.name if victim.poll() is None else "ended before"
        if kind in EXPECTED and not handles_signals(victim.pid):
            kind = "before main()"  # while Python starts, which nobody can help
        if kind == "ended before":  # programs are compiled by now, or nobody else needs the machine
            seconds = min(seconds, time.monotonic() - began)
        victim.send_signal(number)
        codes, said = ends(team)
        tally.note(kind, codes, said)
        if kind in EXPECTED and victim.returncode not in (EXPECTED[kind], 0):
            tally.wrong.append(f"{kind} gives exit code {victim.returncode}: {said[-300:]}")
        print(f"{command}: {kind}, exit codes {codes}: {(said.strip().splitlines() or [''])[-1][:150]}", flush=True)
        if trial.finished(out, said) or not any(codes):  # from the start again
            tally.compare(trial, out, wanted)
            shutil.rmtree(out)
            trial.prepare(out)
    run(trial, command, out, asked.processes)
    tally.compare(trial, out, wanted)


def full_disks(
    trial: Trial, command: str, folder: Path, asked: argparse.Namespace, needed: int, wanted: Any, tally: Tally
) -> None:
    """Runs on disks that are too small, and again once they have grown."""
    draws = random.Random(f"{asked.seed} {command} disk")
    for number in range(asked.full_disks):
        place = folder / f"disk-{number}"
        place.mkdir()
        with disk(place) as resize:
            out = place / "out"
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
                tally.wrong.append(f"a full disk is no line of error: {codes} {last[:300]}")
            print(f"{command}: disk of {share:.0%}, exit codes {codes}: {last[:150]}", flush=True)
            if resize is not None:
                resize(2**30)
            run(trial, command, out, asked.processes)
            tally.compare(trial, out, wanted)
        shutil.rmtree(place, ignore_errors=True)


def disturb(trial: Trial, command: str, here: Path, asked: argparse.Namespace, tally: Tally) -> None:
    """One command: undisturbed, killed, and on full disks. Raises AssertionError where it does not end."""
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
def disk(place: Path) -> Iterator[Callable[[int], None] | None]:
    """Mounts a tmpfs at a folder, and gives what changes its size; None where this machine allows none."""

    def mount(*options: str) -> bool:
        return subprocess.run(["mount", *options, str(place)], capture_output=True).returncode == 0

    if shutil.which("mount") is None or not mount("-t", "tmpfs", "-o", f"size={2**30}", "tmpfs"):
        yield None
        return
    try:
        yield lambda size: print("the disk cannot be resized") if not mount("-o", f"remount,size={size}") else None
    finally:
        subprocess.run(["umount", str(place)], check=False, capture_output=True)


def table(tallies: dict[str, Tally]) -> str:
    """What happened to each command."""
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
    """Prints a line for each start, what went wrong, and a table; exit code 1 where anything did."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(trials(Path()))
    options.add_argument("--commands", nargs="+", choices=names, default=names)
    options.add_argument("--kills", type=int, default=5, help="of each command")
    options.add_argument("--full-disks", type=int, default=2, help="of each command")
    options.add_argument("--processes", type=int, default=2, help="of a training run")
    options.add_argument("--earliest", type=float, default=0.5, help="seconds after a start before it is ended")
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
