"""serve: a server on a slice of one host, whose connection is a tunnel, and which outlives whoever started it."""

import signal
import socket

import pytest

from tests.tpu.conftest import PATIENCE

SERVER = """
trap 'echo "received Ctrl-C"; exit 0' INT
echo "$@" >> $TPU_STAND_IN/commands
echo "ready at http://127.0.0.1:8000"
while [ ! -e $TPU_STAND_IN/go ]; do sleep 0.02; done
exit 3
"""
LOG = "slice/worker-0/s1_jax_jobs/run/log"


@pytest.fixture
def host(there):
    """A cloud with an installed slice of one host, which runs a server of the stand-in."""
    there["workers"] = "1"
    there["run"] = SERVER
    return there


def tunnels(cloud):
    return cloud.called("ssh-flag=-L")


def test_a_server_is_started_once_and_its_port_is_forwarded(host):
    command = ("serve", "--env", "HF_HOME=/x", "--model.path", "gs://b/hf", "--port", "8123")
    stop = (signal.SIGINT, lambda: "ready" in host[LOG] and tunnels(host))
    code, _, said = host.tpu(*command, stop=stop)
    assert code == 130, said
    assert "no longer followed; the run continues on the workers" in said
    assert "s1 (ACTIVE) still exists and may be billed" in said
    (words,) = tunnels(host)
    assert {"--ssh-flag=-L 8123:127.0.0.1:8123", "--ssh-flag=-o ExitOnForwardFailure=yes", "--worker=0"} < set(words)
    assert any("follow run 1" in word for word in words), "no other connection takes the port"
    again = host.start(*command)
    host.wait(lambda: len(tunnels(host)) == 2)
    assert host.tpu("stop")[0] == 0
    printed, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0
    assert printed == "[0] ready at http://127.0.0.1:8000\n[0] received Ctrl-C\n"
    assert host["commands"] == "-m s1_jax.serve --model.path gs://b/hf --port 8123\n"


def test_the_exit_code_is_the_server_s(host):
    host["go"] = ""
    code, _, said = host.tpu("serve", "--port=8124")
    assert code == 3 and "error: the run ended with exit code 3" in said


def test_a_connection_that_breaks_is_made_again_with_its_tunnel(host):
    host["breaks"] = "0\n"
    process = host.start("serve", "--port", "8125")
    host.wait(lambda: len(tunnels(host)) == 2)
    host["go"] = ""
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 3 and host["commands"].count("serve") == 1


def test_a_slice_of_several_hosts_is_refused_with_what_to_do(there):
    there["run"] = SERVER
    code, _, said = there.tpu("serve", "--port", "8126")
    assert code == 2 and there["commands"] == ""
    assert "error: s1 has 2 hosts, and a server takes the chips of one; start one on each host: " in said
    assert "run --env TPU_PROCESS_BOUNDS=1,1,1 --env TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1 serve --host 0.0.0.0" in said


def test_what_the_error_says_starts_one_on_each_host(there):
    there["run"] = 'echo "$TPU_PROCESS_BOUNDS $TPU_CHIPS_PER_PROCESS_BOUNDS $@"'
    bounds = ("--env", "TPU_PROCESS_BOUNDS=1,1,1", "--env", "TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1")
    code, printed, _ = there.tpu("run", *bounds, "serve", "--host", "0.0.0.0")
    assert code == 0
    assert sorted(printed.splitlines()) == [f"[{i}] 1,1,1 2,2,1 -m s1_jax.serve --host 0.0.0.0" for i in "01"]


def test_a_port_that_is_taken_here_is_named_before_anything_begins(host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, said = host.tpu("serve", "--port", str(port))
    assert (code, host.calls) == (2, [])
    assert said == f"error: port {port} of this machine is taken; choose another: scripts/tpu.sh serve ... --port N\n"


@pytest.mark.parametrize("port", ["0", "many", "-1"])
def test_a_port_that_is_none_is_a_mistake(host, port):
    code, _, said = host.tpu("serve", "--port", port)
    assert (code, host.calls) == (2, [])
    assert said == f"error: --port is '{port}'; a tunnel needs a number above 0\n"


def test_a_dry_run_prints_the_tunnel(cloud):
    code, printed, said = cloud.tpu("serve", "--dry-run", "--model.path", "m", TPU_TYPE="v6e-8")
    assert code == 0 and cloud.calls == [], said
    *_, start, follow = printed.replace("\\", "").splitlines()
    assert "start run .venv/bin/python -m s1_jax.serve --model.path m" in start and "-L" not in start
    assert "follow run 1" in follow and "-L 8000:127.0.0.1:8000" in follow
    assert cloud.tpu("serve", "--dry-run", TPU_TYPE="v6e-16")[0] == 2
