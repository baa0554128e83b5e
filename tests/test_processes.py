"""Several processes as one run, for real: on this machine, each with some of the simulated devices."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files

import numpy as np
import pytest
from safetensors.numpy import load_file

from s1_jax import evaluate, processes
from s1_jax.config import HostsConfig, UserError
from s1_jax.reporting.records import read_records
from tests.test_train import PROJECT, STEPS, options, rows, start, wait_for_step  # noqa: F401

BASE = files("s1_jax") / "assets" / "tiny_base"
DEVICES = 4
MESH = ("--mesh.fsdp", "2", "--mesh.tensor", "2", "--data.micro-batch-rows", "4")
GLOO_TOLERANCE = 1e-5  # relative, of the loss: between processes sums are made in another order
PATIENCE = 120  # seconds


class Team:
    """COUNT processes of one run."""

    def __init__(self, count: int, arguments: list[str], module: str = "s1_jax.train") -> None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        env = dict(os.environ, JAX_NUM_CPU_DEVICES=str(DEVICES // count), JAX_DEFAULT_MATMUL_PRECISION="float32")
        env |= {"PYTHONPATH": str(PROJECT), "JAX_PLATFORMS": "cpu"}
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.members = [
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments, "--hosts.processes", f"localhost:{port},{count},{index}"],
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


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):  # noqa: F811
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    codes, _, errors = Team(2, options(start, run_dir, *MESH)).ends()
    assert codes == [0, 0], errors
    return run_dir


def test_one_that_is_told_to_end_ends_all_and_another_number_goes_on(start, tmp_path, undisturbed):  # noqa: F811
    """SIGTERM to one of two: both save the same step and say "start again"; one goes on to the same end."""
    run_dir = tmp_path / "run"
    team = Team(2, options(start, run_dir, *MESH, "--checkpoint.every-steps", "100"))
    wait_for_step(team.members[0], run_dir, 1)
    team.members[1].send_signal(signal.SIGTERM)
    codes, outputs, errors = team.ends()
    assert codes == [os.EX_TEMPFAIL] * 2, errors
    assert all("the same command goes on" in said and "Traceback" not in said for said in errors)
    said = [line for line in outputs[1].splitlines() if not line.startswith("[Gloo]")]
    assert not said, "what there is one of, the first process says"
    (saved,) = (int(path.name) for path in (run_dir / "checkpoints").iterdir() if path.name.isdigit())
    assert 1 <= saved < STEPS and rows(run_dir)[-1]["step"] == saved

    codes, outputs, errors = Team(1, options(start, run_dir, *MESH)).ends()
    assert codes == [0] and f"going on from step {saved}" in outputs[0], errors
    losses, wanted = ([row["loss"] for row in rows(folder)] for folder in (run_dir, undisturbed))
    np.testing.assert_allclose(losses, wanted, rtol=GLOO_TOLERANCE)
    tensors, expected = (load_file(folder / "hf" / "model.safetensors") for folder in (run_dir, undisturbed))
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_one_that_is_killed_ends_the_others_and_the_run_goes_on_to_the_same_bits(start, tmp_path, undisturbed):  # noqa: F811
    """What the killed one wrote of the newest checkpoint is damaged too: the one before is used, by both."""
    run_dir = tmp_path / "run"
    team = Team(2, options(start, run_dir, *MESH, "--hosts.lost-after-seconds", "10"))
    wait_for_step(team.members[0], run_dir, 5, saved=4)
    team.members[1].kill()
    codes, _, errors = team.ends(60)
    assert codes[0] not in (0, 2) and codes[1] == -signal.SIGKILL, errors
    newest = max(int(path.name) for path in (run_dir / "checkpoints").iterdir() if path.name.isdigit())
    for part in (run_dir / "checkpoints" / str(newest) / "state").glob("ocdbt.process_1/d/*"):
        part.write_bytes(b"damaged")

    codes, outputs, errors = Team(2, options(start, run_dir, *MESH)).ends()
    assert codes == [0, 0] and f"going on from step {newest - 2}" in outputs[0], errors
    assert f"{newest} is damaged" in errors[0]
    trained, wanted = (folder / "hf" / "model.safetensors" for folder in (run_dir, undisturbed))
    assert trained.read_bytes() == wanted.read_bytes()
    assert [row["loss"] for row in rows(run_dir)] == [row["loss"] for row in rows(undisturbed)]


def test_a_sweep_over_two_processes_gives_the_records_of_one(tmp_path):
    """Each takes its own problems, and writes its own records until all are there."""
    sweep = [str(PROJECT / "configs" / "quickstart_sweep.py"), "--model.path", str(BASE), "--task.limit", "12"]
    sweep += ["--sweep.max-thinking-tokens", "4", "16", "--max-answer-tokens", "4", "--batch-size", "8"]
    evaluate.main([*sweep, "--run-dir", str(tmp_path / "one")])
    codes, outputs, errors = Team(2, [*sweep, "--run-dir", str(tmp_path / "two")], "s1_jax.evaluate").ends()
    assert codes == [0, 0] and "0 of 24 records done" in outputs[0], errors
    found, wanted = (records_by_key(tmp_path / name) for name in ("two", "one"))
    assert found == wanted and len(found) == 24
    assert sorted(path.name for path in (tmp_path / "two").glob("*.jsonl")) == ["decoding.jsonl", "records.jsonl"]


def records_by_key(run_dir):
    records = read_records(run_dir / "records.jsonl")
    assert len({evaluate.record_key(record) for record in records}) == len(records)
    return {evaluate.record_key(record): record for record in records}


@pytest.mark.parametrize("who", ["here", "here:1", "here:1,2", "here:1,2,2", ":1,2,0", "here:1,2,x", "here:1,0,0"])
def test_what_names_no_processes_is_a_user_error(who):
    with pytest.raises(UserError, match=r"hosts\.processes"):
        processes.start_processes(HostsConfig(who))


def test_alone_nobody_else_is_waited_for():
    processes.start_processes(HostsConfig("none"))
    processes.meet("nobody")
    assert processes.is_first() and processes.any_of(True) and not processes.any_of(False)


def test_a_run_in_which_nothing_moves_ends_with_a_line():
    script = (
        "import time\nfrom s1_jax.processes import Watchdog\n"
        "with Watchdog(1.0) as watchdog:\n    watchdog.tick('step 3: waiting for the devices')\n    time.sleep(60)\n"
    )
    began = time.time()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, timeout=60)
    assert done.returncode == processes.STALLED and time.time() - began < 45
    assert done.stderr.startswith("error: step 3: waiting for the devices: nothing has moved for 1 s")


def test_a_watchdog_lets_what_moves_go_on():
    now = [0.0]
    with processes.Watchdog(2.0, lambda: now[0]) as watchdog:
        for _ in range(8):
            now[0] += 1.5
            watchdog.tick("a step")
            time.sleep(0.05)


def test_a_preemption_notice_is_told_once(monkeypatch):
    answers = [b"FALSE", b"TRUE"]
    asked = []

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path.partition("?")[0], self.headers["Metadata-Flavor"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[min(len(asked) - 1, 1)])

        def log_message(self, *_):
            pass

    server = HTTPServer(("localhost", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told = threading.Event()
    monkeypatch.setenv(processes.METADATA_HOST, f"localhost:{server.server_port}")
    processes.watch_for_preemption(told.set)
    assert told.wait(30)
    server.shutdown()
    assert asked == [("/computeMetadata/v1/instance/preempted", "Google")] * 2


def test_without_a_metadata_server_nobody_is_asked(monkeypatch):
    monkeypatch.delenv(processes.METADATA_HOST, raising=False)
    before = threading.active_count()
    processes.watch_for_preemption(lambda: None)
    assert threading.active_count() == before
