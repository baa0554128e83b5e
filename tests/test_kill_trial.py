"""The kill trial: what it counts as wrong, and that it sees a difference."""

import importlib.util
import os
import signal
import subprocess
import sys

import pytest

from tests.runs import PATIENCE, PROJECT

spec = importlib.util.spec_from_file_location("kill_trial", PROJECT / "scripts" / "kill_trial.py")
kill_trial = importlib.util.module_from_spec(spec)
sys.modules["kill_trial"] = kill_trial  # dataclasses look there
spec.loader.exec_module(kill_trial)


def test_what_is_counted(tmp_path):
    tally = kill_trial.Tally()
    tally.note("SIGKILL", [-9, 70], "")
    tally.note("SIGTERM", [75], "Traceback (most recent call last):\nKeyError")
    tally.note("before main()", [130], "Traceback (most recent call last):\nKeyboardInterrupt")
    trial = kill_trial.Trial(lambda out: [], kill_trial.files_of("a"))
    (tmp_path / "a").write_text("1")
    wanted = trial.made(tmp_path)
    tally.compare(trial, tmp_path, wanted)
    (tmp_path / "a").write_text("2")
    tally.compare(trial, tmp_path, wanted)
    (tmp_path / "a").unlink()
    tally.compare(trial, tmp_path, wanted)
    assert (tally.same, tally.compared) == (1, 3)
    wrong = [line.split(":")[0] for line in tally.wrong]
    assert wrong == ["a traceback after SIGTERM", "outputs differ", "outputs cannot be read", "outputs differ"]
    shown = kill_trial.table({"generate": tally})
    assert shown.splitlines()[-1].split()[0] == "generate" and "1x -9, 1x 70, 1x 75, 1x 130" in shown


def test_a_record_twice_is_seen(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text('{"cost": 1, "runs": []}')
    (run / "report.html").write_text("<html>")
    for lines, fine in (("b\na\n", True), ("a\na\n", False)):
        (run / "records.jsonl").write_text(lines)
        if fine:
            assert kill_trial.evaluated(tmp_path) == (["a", "b"], {"runs": []})
        else:
            with pytest.raises(AssertionError, match="a record twice"):
                kill_trial.evaluated(tmp_path)


def test_whether_a_process_handles_signals():
    code = "import signal, sys; signal.signal(signal.SIGTERM, print); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert kill_trial.handles_signals(process.pid)
        process.stdin.close()
    assert not kill_trial.handles_signals(process.pid)
    assert kill_trial.handles_signals(os.getpid()) == callable(signal.getsignal(signal.SIGTERM))


@pytest.mark.slow
def test_a_command_that_is_killed_and_whose_disk_is_full():
    script = [sys.executable, str(PROJECT / "scripts" / "kill_trial.py"), "--commands", "generate"]
    done = subprocess.run(
        [*script, "--kills", "2", "--full-disks", "1"], capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert (done.returncode == 0 and "2 of 2" in done.stdout) or "3 of 3" in done.stdout, done.stdout + done.stderr
