"""create, install, delete and status, and what they leave behind when they fail."""

import signal

import pytest

QUOTA = "ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota limit 'TPUV5PPerProjectPerZone' has been exceeded. Limit: 0"
STILL = "still exists and may be billed; to delete it: scripts/tpu.sh delete --project p --zone us-east5-a --name s1"


def test_create_asks_once_and_waits_until_the_slice_is_there(cloud):
    cloud["states"] = "ACCEPTED\nWAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\n"
    code, _, said = cloud.tpu("create", "--spot")
    assert code == 0
    wanted = (
        "compute tpus queued-resources create s1 --node-id=s1 --accelerator-type=v5p-64"
        " --runtime-version=v2-alpha-tpuv5 --valid-until-duration=87000s --spot --quiet --project=p --zone=us-east5-a"
    )
    assert cloud.called("resources create") == [wanted.split()]
    assert "s1 is PROVISIONING\ns1 is ACTIVE\n" in said
    assert "billed until: scripts/tpu.sh delete" in said
    assert cloud.tpu("create")[0] == 0, "again: it is there"
    assert len(cloud.called("resources create")) == 1


@pytest.mark.parametrize("slice_type, runtime", [("v6e-8", "v2-alpha-tpuv6e"), ("v5litepod-16", "v2-alpha-tpuv5-lite")])
def test_options_go_before_the_environment(cloud, slice_type, runtime):
    code, *_ = cloud.tpu(
        "create",
        "--type",
        slice_type,
        "--name",
        "other",
        "--service-account",
        "a@b",
        TPU_CREATE_FLAGS="--network=n --internal-ips",
    )
    (words,) = cloud.called("resources create")
    assert code == 0
    assert {
        f"--accelerator-type={slice_type}",
        f"--runtime-version={runtime}",
        "--service-account=a@b",
        "--network=n",
        "--internal-ips",
    } < set(words)
    assert words[4] == "other" and "--spot" not in words


@pytest.mark.parametrize(
    "words, message",
    [
        (["create", "--type", ""], "which slice?"),
        (["create", "--type", "v9-8"], "no runtime version is known for v9-8"),
        (["create", "--spott"], "no option --spott"),
        (["create", "--zone"], "--zone needs a value"),
        (["create", "--wait-seconds", "1h"], "takes a number of seconds"),
        (["install", "--project", ""], "which project?"),
        (["install", "now"], "install takes no arguments"),
        (["begin"], "no command 'begin'"),
        (["run"], "run what?"),
        (["fetch"], "fetch what?"),
        (["supervise", "train", "c.py", "--run-dir", "runs/x"], "supervise needs --run-dir gs://"),
    ],
)
def test_a_mistake_is_one_line_and_reaches_no_cloud(cloud, words, message):
    code, printed, said = cloud.tpu(*words)
    assert (code, printed, cloud.calls) == (2, "", [])
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_a_quota_error_says_so_and_that_nothing_is_billed(cloud):
    cloud["create_errors"] = QUOTA + "\n"
    code, _, said = cloud.tpu("create")
    assert code == 1
    assert f"error: the request was refused: {QUOTA}\nnothing is billed: there is no s1 in us-east5-a\n" in said


def test_a_request_that_waits_for_too_long_is_not_forgotten(cloud):
    cloud["states"] = "WAITING_FOR_RESOURCES\n"
    code, _, said = cloud.tpu("create", "--wait-seconds", "0")
    assert code == 1 and cloud.exists
    assert "still WAITING_FOR_RESOURCES after 0 s" in said and f"s1 (WAITING_FOR_RESOURCES) {STILL}" in said


def test_delete_on_failure_deletes_what_failed(cloud):
    cloud["states"] = "WAITING_FOR_RESOURCES\n"
    code, _, said = cloud.tpu("create", "--wait-seconds", "0", "--delete-on-failure")
    assert code == 1 and not cloud.exists
    assert said.endswith("deleting s1\nnothing is billed: there is no s1 in us-east5-a\n")


@pytest.mark.parametrize("flag", [[], ["--delete-on-failure"]])
def test_ctrl_c_leaves_nothing_behind_in_silence(cloud, flag):
    cloud["states"] = "PROVISIONING\n"
    code, _, said = cloud.tpu("create", *flag, stop=(signal.SIGINT, lambda: len(cloud.called("describe")) > 2))
    assert code == 130
    assert ("nothing is billed" in said) if flag else (f"s1 (PROVISIONING) {STILL}" in said)
    assert cloud.exists == (not flag)


def test_ctrl_c_is_heard_in_the_background_of_a_script_too(cloud):
    cloud["states"] = "PROVISIONING\n"
    stop = (signal.SIGINT, lambda: len(cloud.called("describe")) > 2)
    code, _, said = cloud.tpu("create", "--delete-on-failure", in_background=True, stop=stop)
    assert code == 130 and "nothing is billed" in said and not cloud.exists


def test_a_request_whose_node_was_preempted_is_not_taken_for_a_slice(cloud):
    cloud.tpu("create")
    cloud["node_state"] = "PREEMPTED"
    code, _, said = cloud.tpu("create")
    assert code == 0 and "s1 is GONE: requesting it again" in said
    assert len(cloud.called("resources create")) == 2


def test_a_failed_request_gives_its_reason(cloud):
    cloud["states"] = "PROVISIONING\nFAILED\n"
    code, _, said = cloud.tpu("create")
    assert code == 75 and "error: the request failed: no room until the time given" in said and STILL in said


def test_a_cloud_that_refuses_to_answer_ends_the_wait(cloud):
    cloud.env["PATH"] = f"{cloud.folder}:{cloud.env['PATH']}"
    (cloud.folder / "gcloud").write_text("#!/bin/sh\necho 'ERROR: run gcloud auth login' >&2\nexit 1\n")
    (cloud.folder / "gcloud").chmod(0o755)
    code, _, said = cloud.tpu("create")
    assert code == 1 and "gcloud does not report the state of s1: ERROR: run gcloud auth login" in said
    assert "s1 may exist and be billed" in said


def test_install_brings_the_checkout_and_its_extras_to_every_worker(cloud):
    (cloud.checkout / "own_config.py").write_text("mine")
    (cloud.checkout / "runs").mkdir()
    (cloud.checkout / "runs" / "large").write_text("")
    cloud.tpu("create")
    code, printed, said = cloud.tpu("install")
    assert code == 0, said
    for worker in "01":
        home = cloud.folder / "slice" / f"worker-{worker}" / "s1_jax"
        assert (home / "own_config.py").read_text() == "mine" and not (home / "runs").exists()
        asked = [line[2:] for line in cloud["pip"].splitlines() if line.startswith(worker)]
        assert asked[0] == "-m venv --clear .venv"
        assert [line.partition(" -c constraints.txt ")[2] for line in asked[1:]] == [
            "-e .",
            "-e .[tpu]",
            "-e .[gcs]",
            "-e .[serve]",
        ]
        assert f"[{worker}] Installed." in printed
    assert f"s1 (ACTIVE) {STILL}" in said


def test_an_old_python_is_left_aside(cloud):
    cloud["old_python"] = cloud["workers"] = "1"
    cloud.tpu("create")
    code, *_ = cloud.tpu("install")
    assert code == 0
    assert "uv venv --quiet --seed --clear --python 3.12 .venv" in cloud["pip"] and "-m venv" not in cloud["pip"]


def test_an_installation_that_fails_shows_where(cloud):
    cloud["on_pip"] = '[ "$WORKER" = 0 ] || { echo "no wheel" && exit 1; }'
    cloud.tpu("create")
    code, printed, said = cloud.tpu("install")
    assert code == 75 and "[1] no wheel" in printed
    assert "error: the installation failed with exit code 1" in said and STILL in said


def test_a_worker_that_does_not_answer_is_named(cloud):
    cloud.tpu("create")
    cloud["dead"] = "1"
    code, _, said = cloud.tpu("install")
    assert code == 69
    assert "error: no answer from worker 1 of 2: ssh: connect to host" in said and f"s1 (ACTIVE) {STILL}" in said


def test_a_slice_that_cannot_be_deleted_is_not_called_deleted(cloud):
    cloud.tpu("create")
    cloud["undeletable"] = ""
    code, _, said = cloud.tpu("delete")
    assert code == 1 and "could not be deleted; it is ACTIVE and may be billed" in said
    (cloud.folder / "undeletable").unlink()
    assert cloud.tpu("delete")[0] == 0 and not cloud.exists
    assert cloud.tpu("delete")[0] == 0, "there is nothing to delete"


@pytest.mark.parametrize(
    "words, shown",
    [
        (["create"], ["resources describe s1", "resources create s1", "resources describe s1"]),
        (
            ["install"],
            ["tpu-vm describe s1", "tar -czf", "{ true; }"] + ["scp", "tar -xzf"] * 8 + ["start"] * 8 + ["follow"] * 8,
        ),
        (["run", "train", "c.py"], ["tpu-vm describe s1"] + ["start run .venv"] * 8 + ["follow run 1"] * 8),
        (["fetch", "gs://b/r"], ["storage rsync gs://b/r runs/r --recursive"]),
        (["delete"], ["resources delete s1 --force --quiet"]),
    ],
)
def test_a_dry_run_prints_every_command_and_does_nothing(cloud, words, shown):
    code, printed, said = cloud.tpu(words[0], "--dry-run", *words[1:])
    assert code == 0 and cloud.calls == [], said
    lines = printed.splitlines()
    assert len(lines) == len(shown)
    for line, part in zip(lines, shown, strict=True):
        assert part in line.replace("\\", "")


def test_a_dry_run_of_the_supervisor_goes_through_all_of_it(cloud):
    code, printed, _ = cloud.tpu("supervise", "--dry-run", "train", "c.py", "--run-dir", "gs://b/r", TPU_TYPE="v6e-8")
    assert code == 0 and cloud.calls == []
    for part in (
        "storage ls gs://b/r/checkpoints/*/commit_success.txt",
        "resources create",
        "scp",
        "start run .venv",
        "follow run 1",
    ):
        assert part in printed.replace("\\", "")
