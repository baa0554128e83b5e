"""run, follow, stop, status and fetch: a run on all workers that outlives whoever started it."""

import signal

import pytest

from tests.tpu.conftest import PATIENCE

SLOW = "echo began $WORKER; while [ ! -e $TPU_STAND_IN/go ]; do sleep 0.02; done; echo ended $WORKER; exit 0"


def followed(cloud, times=2):
    return lambda: len(cloud.called("follow run")) == times


def test_logs_come_together_line_by_line(there):
    there["run"] = 'echo "step 1 of $WORKER"; echo "a warning" >&2; echo "$@"'
    code, printed, said = there.tpu("run", "--env", "HF_HOME=/x", "train", "configs/c.py", "--data.name", "a b\n$c'")
    assert code == 0
    for worker in "01":
        lines = [line[4:] for line in printed.splitlines() if line.startswith(f"[{worker}] ")]
        assert lines == [f"step 1 of {worker}", "a warning", "-m s1_jax.train configs/c.py --data.name a b", "$c'"]
    assert "s1 (ACTIVE) still exists and may be billed" in said


def test_the_exit_code_is_that_of_the_worker_that_failed_first(there):
    there["run"] = "[ $WORKER = 1 ] && exit 70; sleep 0.2; exit 3"
    code, _, said = there.tpu("run", "train")
    assert code == 70 and "error: the run ended with exit code 70" in said


def test_a_run_outlives_its_terminal_and_can_be_followed_again(there):
    there["run"] = SLOW
    code, _, said = there.tpu("run", "train", "c.py", stop=(signal.SIGINT, followed(there)))
    assert code == 130 and "no longer followed; the run continues on the workers" in said
    assert "running; last line: began" in there.tpu("status")[1]
    there["go"] = ""
    code, printed, _ = there.tpu("follow")
    assert code == 0
    assert sorted(printed.splitlines()) == ["[0] began 0", "[0] ended 0", "[1] began 1", "[1] ended 1"]
    assert "[1] ended with exit code 0; last line: ended 1" in there.tpu("status")[1]


def test_starting_the_same_again_follows_it_and_another_is_refused(there):
    there["run"] = SLOW
    process = there.start("run", "train", "c.py")
    there.wait(followed(there))
    code, printed, _ = there.tpu("run", "train", "other.py")
    assert code == 2 and "another command is running here" in printed
    again = there.start("run", "train", "c.py")
    there.wait(followed(there, 4))
    there["go"] = ""
    for each in (process, again):
        printed, _ = each.communicate(timeout=PATIENCE)
        assert each.returncode == 0 and printed.count("began") == 2


def test_stop_is_ctrl_c_to_the_run(there):
    there["run"] = "trap 'echo kept; exit 130' INT; echo began; while :; do sleep 0.02; done"
    process = there.start("run", "train")
    logs = [f"slice/worker-{worker}/s1_jax_jobs/run/log" for worker in "01"]
    there.wait(lambda: all("began" in there[log] for log in logs))
    assert there.tpu("stop")[0] == 0
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "[0] kept" in printed and "[1] kept" in printed


def test_a_machine_that_shuts_down_leaves_the_code_of_its_run(there):
    there["workers"] = "1"
    there["run"] = "trap 'sleep 0.1; exit 75' TERM; kill -TERM 0; while :; do sleep 0.02; done"
    assert there.tpu("run", "train")[0] == 75


def test_a_connection_that_breaks_loses_and_repeats_no_line(there):
    there["workers"] = "1"
    there["breaks"] = "2\n0\n3\n"
    there["run"] = "for i in 1 2 3 4 5 6 7 8; do echo line $i; done; printf unended; exit 5"
    code, printed, _ = there.tpu("run", "train")
    assert code == 5
    assert printed.splitlines() == [*(f"[0] line {i}" for i in range(1, 9)), "[0] unended"]
    assert len(there.called("follow run")) == 4


def test_a_worker_lost_during_a_run_ends_it_with_a_code_of_its_own(there):
    there["run"] = "[ $WORKER = 0 ] && exit 0; echo 1 > $TPU_STAND_IN/dead; sleep 60"
    code, _, said = there.tpu("run", "train")
    assert code == 69 and "error: no answer from worker 1 of 2" in said


def test_a_killed_run_is_not_a_finished_one(there):
    there["run"] = "kill -9 $PPID $(ps -o ppid= -p $PPID) $$"  # with the process that would note the code
    code, _, _ = there.tpu("run", "train")
    assert code == 137


@pytest.mark.parametrize("run_dir", ["gs://b/runs/x", "runs/x"])
def test_fetch_leaves_checkpoints_and_weights_where_they_are(there, run_dir, tmp_path):
    root = there.folder / ("gs/b/runs/x" if "gs://" in run_dir else "slice/worker-0/s1_jax/runs/x")
    for name in ("metrics.jsonl", "checkpoints/5/data", "hf/model.safetensors", "tensorboard/events"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    here = tmp_path / "here"
    code, _, said = there.tpu("fetch", run_dir, str(here))
    assert code == 0, said
    fetched = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
    assert fetched == {"metrics.jsonl", "tensorboard/events"}
    assert there.tpu("fetch", "--everything", run_dir)[0] == 0
    assert (there.checkout / "runs/x/checkpoints/5/data").read_text() == "checkpoints/5/data"
    code, _, said = there.tpu("fetch", "runs/none", str(here))
    assert code == 1 and "runs/none could not be read on worker 0" in said
