"""Several processes as one run, for real: on this machine, each with some of the simulated devices."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from s1_jax import evaluate, train
from s1_jax.config import HostsConfig
from s1_jax.errors import UserError
from s1_jax.records.lines import read_records
from s1_jax.runtime import processes
from s1_jax.runtime.processes import LOST
from tests.runs import (
    ALONE,
    MESH,
    PATIENCE,
    STEPS,
    SWEEP,
    Team,
    assert_same_run,
    gate,
    options,
    records_by_key,
    rows,
    wait_for_step,
)

STALL = 60  # seconds, far above what compiling takes here


@pytest.mark.slow
def test_one_of_four_that_is_told_to_end_ends_all_and_another_number_goes_on(start, tmp_path, alone):
    """SIGTERM to one: all save the same step and say "start again"; one process goes on to where it comes to alone."""
    run_dir = tmp_path / "run"
    arguments = options(start, run_dir, *MESH, "--checkpoint.every-steps", "100")
    team = Team(4, arguments, first={0: gate("s1_jax.training.metrics:MetricsLog.write", 2, tmp_path / "go")})
    wait_for_step(team.members[0], run_dir, 2)
    team.members[3].send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    codes, outputs, errors = team.ends()
    assert codes == [os.EX_TEMPFAIL] * 4, errors
    assert all("Run the same command" in said and "Traceback" not in said for said in errors)
    said = [line for out in outputs[1:] for line in out.splitlines() if not line.startswith("[Gloo]")]
    assert not said, "what there is one of, the first process says"
    (stopped_at,) = saved(run_dir)
    assert 2 <= stopped_at < STEPS and rows(run_dir)[-1]["step"] == stopped_at

    train.main(options(start, run_dir, *ALONE))
    assert_same_run(run_dir, alone)


FULL_DISK = """
import resource
from s1_jax.checkpoints.orbax import Checkpointer

def save(self, step, *rest, save=Checkpointer.save):
    if step == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    save(self, step, *rest)

Checkpointer.save = save
"""
NO_INPUT = """
import time
from s1_jax.data.loader import Loader

def batches(self, position, batches=Loader.batches):
    for number, step in enumerate(batches(self, position)):
        if number == 3:
            time.sleep(1000)
        yield step

Loader.batches = batches
"""


@pytest.mark.slow
def test_one_that_fails_ends_the_others_and_the_run_goes_on_to_the_same_bits(start, tmp_path, alone):
    """Of two, one cannot write all of step 4; then one gets no input after step 5; its part of step 4 is damaged."""
    run_dir = tmp_path / "run"
    arguments = options(start, run_dir, *MESH, "--hosts.lost-after-seconds", "20")
    codes, _, errors = Team(2, arguments, first={1: FULL_DISK}).ends()
    assert codes == [LOST, 1] and saved(run_dir) == {2}, errors
    assert last_line(errors[0]).startswith("error: another process is lost")
    assert re.match(f"error: a save into {run_dir}/checkpoints failed: .*File too large", last_line(errors[1]))
    once = [row for row in rows(run_dir) if row["step"] > 2]
    assert len(once) >= 2

    stalling = [*arguments, "--hosts.stall-seconds", str(STALL)]
    codes, outputs, errors = Team(2, stalling, first={1: NO_INPUT}).ends()
    assert codes == [LOST] * 2 and "resuming from step 2" in outputs[0], errors
    assert errors[1].startswith("error: step 5: waiting for the input of the next: no progress for")
    assert re.search("^error: (another process is lost|step 5: waiting for the devices)", errors[0], re.MULTILINE)
    assert saved(run_dir) == {2, 4}
    for part in (run_dir / "checkpoints" / "4" / "state").glob("ocdbt.process_1/d/*"):
        part.write_bytes(b"damaged")

    codes, outputs, errors = Team(2, arguments).ends()
    assert codes == [0, 0] and "resuming from step 2" in outputs[0], errors
    assert "4 is damaged" in errors[0]
    assert_same_run(run_dir, alone)
    exact = ("step", "loss", "grad_norm", "param_norm", "examples_seen")
    again = rows(run_dir)[2 : 2 + len(once)]
    assert [[row[name] for name in exact] for row in again] == [[row[name] for name in exact] for row in once]


def saved(run_dir):
    return {int(path.name) for path in (run_dir / "checkpoints").iterdir() if path.name.isdigit()}


def last_line(said):
    return said.splitlines()[-1]


@pytest.mark.slow
def test_a_sweep_over_four_processes_gives_the_records_of_one(tmp_path, sweep_alone):
    """Each takes its own problems, and writes its own records until all are there."""
    run_dir = tmp_path / "run"
    codes, outputs, errors = Team(4, [*SWEEP, "--run-dir", str(run_dir)], evaluate).ends()
    assert codes == [0] * 4 and "0 of 24 records done" in outputs[0], errors
    assert records_by_key(run_dir) == sweep_alone and len(sweep_alone) == 24
    assert sorted(path.name for path in run_dir.glob("*.jsonl")) == ["decoding.jsonl", "records.jsonl"]


@pytest.mark.slow
def test_one_model_over_two_processes_decodes_the_records_of_one(tmp_path, sweep_alone):
    """A mesh larger than a process: both decode all, one writes. Told to end, both do, and the sweep goes on."""
    arguments = [*SWEEP, "--run-dir", str(tmp_path / "run"), "--mesh.fsdp", "2", "--mesh.tensor", "2"]
    team = Team(2, arguments, evaluate, first={0: gate("s1_jax.evaluation.decode:graded", 2, tmp_path / "go")})
    records, deadline = tmp_path / "run" / "records.jsonl", time.time() + PATIENCE
    while not (records.exists() and records.stat().st_size):
        assert time.time() < deadline and all(member.poll() is None for member in team.members), team.ends()
        time.sleep(0.02)
    team.members[1].send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    codes, _, errors = team.ends()
    assert codes == [os.EX_TEMPFAIL] * 2, errors
    done = len(read_records(records))
    assert 0 < done < 24
    codes, outputs, errors = Team(2, arguments, evaluate).ends()
    assert codes == [0, 0] and f"{done} of 24 records done" in outputs[0], errors
    assert records_by_key(tmp_path / "run") == sweep_alone


NO_FORM = "is neither auto nor none nor HOST:PORT,COUNT,INDEX"
NO_PORT = "is not between 1 and 65535"


@pytest.mark.parametrize(
    ("who", "said"),
    [
        *((who, NO_FORM) for who in ("", "here", "here:1", "here:1,2", "here:1,2,0,0", ":1,2,0", " :1,2,0")),
        *((who, NO_FORM) for who in ("here:1,2,x", "here:-1,2,0", "here:1,1,0\n", "here:1,2,\N{SUPERSCRIPT TWO}")),
        ("here:" + "9" * 5000 + ",2,0", NO_FORM),
        *((who, NO_PORT) for who in ("here:0,2,0", "here:65536,2,0", "here:99999,2,0")),
        ("here:1,2,2", "of 2 processes the last is 1"),
        ("here:1,0,0", "of 0 processes the last is -1"),
    ],
)
def test_what_names_no_processes_is_a_user_error(who, said):
    with pytest.raises(UserError, match=rf"hosts\.processes .*{said}"):
        processes.start_processes(HostsConfig(who))


def test_alone_nobody_else_is_waited_for():
    processes.start_processes(HostsConfig("none"))
    processes.meet("nobody")
    assert processes.is_first() and processes.any_of(True) and not processes.any_of(False)


def test_a_watchdog_lets_what_moves_go_on():
    now = [0.0]
    with processes.Watchdog(2.0, lambda: now[0]) as watchdog:
        for _ in range(8):
            now[0] += 1.5
            watchdog.tick("a step")
            time.sleep(0.05)


def test_a_process_that_was_stopped_is_no_stall(monkeypatch, capfd):
    """As its watchdog sees Ctrl-Z and `fg` an hour later; and then a stall, of which the hour is no part."""
    looks, resumed, ended, over = [], 3600.0, threading.Event(), threading.Event()

    def now():
        looks.append(0.05 * len(looks) + (resumed if len(looks) > 1 else 0))
        return looks[-1]

    def end(code):
        assert code == LOST
        ended.set()
        over.wait(PATIENCE)

    monkeypatch.setattr(processes.os, "_exit", end)
    with processes.Watchdog(0.2, now):
        assert ended.wait(PATIENCE)
    over.set()
    assert looks[1] < 1 and resumed + 0.12 < looks[-1] < resumed + 0.3
    assert "starting: no progress for" in capfd.readouterr().err


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
