"""The supervisor: what it makes again, and when it gives up."""

import pytest

from tests.tpu.conftest import PATIENCE

COMMAND = ("train", "configs/c.py", "--run-dir", "gs://b/r")
CHECKPOINT = "d=$TPU_STAND_IN/gs/b/r/checkpoints/$starts; mkdir -p $d; touch $d/commit_success.txt"
# every start of worker 0 is counted in $starts, beginning with 1
COUNTED = """
if [ $WORKER != 0 ]; then exit 0; fi
echo start >> $TPU_STAND_IN/starts
starts=$(wc -l < $TPU_STAND_IN/starts)
"""
PREEMPT = "touch $TPU_STAND_IN/preempted; sleep 60"


def runs(cloud, script, workers="1"):
    cloud["workers"] = workers
    cloud["run"] = COUNTED + script


def test_a_slice_preempted_during_a_run_is_made_again_and_the_same_command_goes_on(cloud):
    runs(cloud, f'echo "$@" >> $TPU_STAND_IN/commands; [ $starts = 1 ] && {{ {CHECKPOINT}; {PREEMPT}; }}; echo done')
    code, printed, said = cloud.tpu("supervise", "--spot", "--delete-when-done", *COMMAND, TPU_SSH_TRIES="1000")
    assert code == 0 and "[0] done" in printed, said
    assert cloud["commands"] == "-m s1_jax.train configs/c.py --run-dir gs://b/r\n" * 2
    assert len(cloud.called("resources create .*--spot")) == 2
    assert "s1 is SUSPENDED: requesting it again" in said
    assert "(checkpoint 1, 0 bytes of records; 1 of 3 starts without anything new)" in said
    assert said.endswith("nothing is billed: there is no s1 in us-east5-a\n") and not cloud.exists


def test_a_slice_preempted_during_set_up_is_made_again(cloud):
    cloud["on_pip"] = f"if mkdir $TPU_STAND_IN/once 2>/dev/null; then {PREEMPT}; fi"
    runs(cloud, "echo done")
    code, printed, said = cloud.tpu("supervise", *COMMAND)
    assert code == 0 and "[0] done" in printed, said
    assert len(cloud.called("resources create")) == 2
    assert "s1 (ACTIVE) still exists and may be billed" in said


def test_a_slice_preempted_before_it_was_there_is_asked_for_again(cloud):
    cloud["states"] = "PROVISIONING\nSUSPENDED\n"
    code, _, said = cloud.tpu("supervise", *COMMAND)
    assert code == 69 and len(cloud.called("resources create")) == 3
    assert "giving up: s1 was lost during its setup (SUSPENDED); 3 starts in a row have saved nothing new" in said


@pytest.mark.parametrize("code, why", [(2, "a mistake in the command"), (130, "stopped by hand")])
def test_what_no_other_try_mends_is_not_tried_again(cloud, code, why):
    runs(cloud, f"exit {code}")
    ended, _, said = cloud.tpu("supervise", *COMMAND)
    assert ended == code and cloud["starts"].count("start") == 1
    assert f"error: giving up: {'the run was ' if code == 130 else ''}{why}" in said
    assert "still exists and may be billed" in said


def test_a_run_that_ends_before_its_time_is_started_again_where_it_is(cloud):
    runs(cloud, "[ $starts = 1 ] && exit 1; [ $starts = 2 ] && exit 75; exit 0")
    ended, _, said = cloud.tpu("supervise", *COMMAND)
    assert ended == 0 and cloud["starts"].count("start") == 3, said
    assert len(cloud.called("resources create")) == 1


def test_starts_that_keep_nothing_new_are_bounded(cloud):
    runs(cloud, "exit 9")
    code, _, said = cloud.tpu("supervise", "--delete-on-failure", *COMMAND)
    assert code == 9 and cloud["starts"].count("start") == 3 and not cloud.exists
    assert "giving up: the run ended with exit code 9; 3 starts in a row have saved nothing new (checkpoint" in said


def test_starts_that_keep_something_are_not(cloud):
    record = "echo {} >> $TPU_STAND_IN/gs/b/r/records.jsonl"
    runs(cloud, f"[ $starts = 5 ] && exit 0; if [ $starts = 3 ]; then {record}; else {CHECKPOINT}; fi; exit 75")
    code, *_ = cloud.tpu("supervise", *COMMAND)
    assert code == 0 and cloud["starts"].count("start") == 5


def test_no_quota_when_it_is_made_again_ends_it(cloud):
    cloud["create_errors"] = "\nERROR: RESOURCE_EXHAUSTED: Quota limit has been exceeded\n"
    runs(cloud, PREEMPT)
    code, _, said = cloud.tpu("supervise", *COMMAND)
    assert code == 1 and "giving up: the request was refused: ERROR: RESOURCE_EXHAUSTED: Quota" in said
    assert said.endswith("nothing is billed: there is no s1 in us-east5-a\n")


def test_a_want_of_room_is_asked_for_again(cloud):
    cloud["create_errors"] = "ERROR: UNAVAILABLE: no more capacity in the zone\n"
    runs(cloud, "exit 0")
    code, *_ = cloud.tpu("supervise", *COMMAND)
    assert code == 0 and len(cloud.called("resources create")) == 2


def test_a_worker_that_does_not_answer_has_its_slice_replaced(cloud):
    runs(cloud, "[ $starts = 1 ] && { echo 0 > $TPU_STAND_IN/dead; sleep 60; }; echo done", workers="2")
    code, printed, said = cloud.tpu("supervise", *COMMAND)
    assert code == 0 and "[0] done" in printed, said
    assert "no answer from worker 0 of 2" in said and len(cloud.called("resources create")) == 2


def test_a_run_that_is_under_way_is_followed_and_its_files_are_left_alone(cloud):
    runs(cloud, "while [ ! -e $TPU_STAND_IN/go ]; do sleep 0.02; done; echo done")
    first = cloud.start("supervise", *COMMAND)
    cloud.wait(lambda: cloud.called("follow run"))
    first.kill()
    copies = len(cloud.called("tpu-vm scp"))
    second = cloud.start("supervise", *COMMAND)
    cloud.wait(lambda: len(cloud.called("follow run")) == 2)
    cloud["go"] = ""
    printed, _ = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0 and "[0] done" in printed
    assert len(cloud.called("tpu-vm scp")) == copies and cloud["starts"].count("start") == 1
