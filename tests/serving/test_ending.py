"""How the server ends: SIGTERM with requests under way, an engine that fails, and starts that cannot be."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module

import pytest

from s1_jax.errors import RunError, UserError
from s1_jax.serving.listen import bind, serve, url_of
from tests.runs import BASE, PATIENCE, PROJECT
from tests.serving.bodies import offer
from tests.serving.running import (
    ASKED,
    CHAT,
    KEY,
    KEY_VARIABLE,
    MESSAGES,
    NAME,
    SMALLEST,
    TEXT,
    Running,
    frames_of,
    started,
    wait_until,
)

LEAST = {"model": NAME, "messages": ASKED}
LONG = LEAST | {"stream": True, "n": 24, "temperature": 1.0, "thinking": {"min_tokens": 80}}  # seconds of work
ENDLESS = LONG | {"n": 1500}  # minutes of it
MANY = ("--limits.max-choices", "2000", "--limits.max-waiting", "4000")


def frames(connection):
    """The frames of a stream that has been asked for over a socket."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    assert response.status == 200
    return frames_of(response)


def begin(stream):
    """Read a stream up to its first text."""
    while not next(stream)["choices"][0]["delta"].get("reasoning_content"):
        pass


def test_sigterm_lets_a_stream_finish():
    with started(*SMALLEST, "--drain-seconds", str(PATIENCE)) as server:
        with server.raw(server.written(CHAT, LONG)) as connection:
            stream = frames(connection)
            begin(stream)
            server.terminate()
            server.wait_for("received SIGTERM; finishing 1 requests within")
            for path, body in ((CHAT, LEAST), (TEXT, {"model": NAME, "prompt": "a"}), (MESSAGES, LEAST)):
                refused = server.ask(path, body)
                assert refused.status == 503 and int(refused.headers["retry-after"]) > 0
                assert "takes no more requests" in refused.json["error"]["message"]
            health = server.ask("/health")
            assert health.status == 503 and health.json["status"] == "ending" and health.json["running"] > 0
            *chunks, done = stream
        ended = {choice["index"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]}
        assert done == "[DONE]" and ended == set(range(LONG["n"]))
        assert server.ends() == 0


def test_what_takes_longer_than_the_drain_is_given_up():
    """Streamed or not, under way or waiting: each is told, and the exit code is 0."""
    with started(*SMALLEST, *MANY, "--drain-seconds", "0.2") as server:
        whole: list[int] = []
        waits = threading.Thread(target=lambda: whole.append(server.ask(CHAT, ENDLESS | {"stream": False}).status))
        unread = ENDLESS | {"n": 40, "logprobs": True, "top_logprobs": 20}
        with (
            server.raw(server.written(CHAT, unread), receive_buffer=4096),
            server.raw(server.written(CHAT, ENDLESS)) as connection,
        ):
            stream = frames(connection)
            begin(stream)
            waits.start()
            wait_until(lambda: server.ask("/health").json["waiting"] > ENDLESS["n"])
            server.terminate()
            *_, last = stream
            assert server.ends() == 0, "a client that does not read holds nobody up"
        waits.join(PATIENCE)
        assert last["error"]["type"] == "service_unavailable" and "has ended" in last["error"]["message"]
        assert whole == [503]


def failed_start(*options):
    """Exit code and standard error of a server that cannot be."""
    command = [sys.executable, "-m", "s1_jax.serve", "--model.path", str(BASE), *options]
    environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    done = subprocess.run(
        command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stderr


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = failed_start("--port", str(port))
    assert code == 2 and said.startswith(f"error: cannot listen on 127.0.0.1, port {port}: Address already in use")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--api-key-variable", KEY_VARIABLE), f"the environment variable {KEY_VARIABLE} is not set"),
        (("--api-key-variable", "sk-1234"), "must be the name of an environment variable, never the key itself"),
        (("--host", "nowhere.invalid"), "cannot listen on nowhere.invalid"),
        (("--budget.no-forcing",), "budget.forcing is false"),
    ],
)
def test_a_start_that_cannot_be(options, words, monkeypatch, no_weights):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(UserError, match=words) as raised:
        import_module("s1_jax.serve").main(["--model.path", str(BASE), "--port", "0", *options])
    assert "sk-1234" not in str(raised.value)


class Stuck:
    """A queue that takes requests and decodes nothing; once `count` of them are there it may fail."""

    idle, size, num_waiting, num_running, step_seconds = False, 1, 0, 1, 0.01

    def __init__(self, error=None, count=2):
        self.error, self.count, self.there = error, count, 0

    def submit(self, requests, runs):
        self.there += 1
        return list(range(100 * self.there, 100 * self.there + len(requests)))

    def cancel(self, numbers):
        pass

    def look(self, *pace):
        if self.there == self.count and self.error is not None:
            raise self.error
        time.sleep(0.01)
        return []


@pytest.fixture
def served_here(model):
    """`served_here(queue, ask, **options)`: serve in this process what `ask(server)` asks in a thread of its own."""

    def run(queue, ask, **options):
        bound = bind("127.0.0.1", 0)
        here = Running.__new__(Running)
        here.host, here.port, here.key, here.url = *bound.getsockname(), KEY, url_of(bound)

        over = threading.Event()

        def asks():
            wait_until(lambda: over.is_set() or reachable(here))
            ask(here)

        client = threading.Thread(target=asks, daemon=True)
        client.start()
        try:
            serve(offer(max_model_len=256, **options), model.engine(256, 4, scores=True), queue, (KEY,), bound)
        finally:
            over.set()
            client.join(PATIENCE)
            assert not reachable(here)

    return run


def reachable(server):
    with contextlib.suppress(OSError):
        return server.ask("/health").status == 200
    return False


@pytest.mark.parametrize("error", [RuntimeError("out of\nmemory"), RunError("the logits are not finite")], ids=str)
def test_an_engine_that_fails(served_here, error, capsys):
    """Open requests are told, the process ends, and its last line says why."""
    replies = {}

    def ask(server):
        with server.raw(server.written(CHAT, LEAST | {"stream": True, "n": 3})) as connection:
            stream = frames(connection)
            next(stream)
            replies["whole"] = server.ask(MESSAGES, LEAST | {"max_tokens": 9})
            replies["streamed"] = list(stream)[-1]

    with pytest.raises(RunError) as raised:
        served_here(Stuck(error), ask)
    assert replies["streamed"]["error"]["message"] == "the engine has failed; the server is ending"
    assert replies["whole"].status == 500 and replies["whole"].json["error"]["type"] == "api_error"
    said = capsys.readouterr().err
    if isinstance(error, RunError):
        assert raised.value is error and "Traceback" not in said
    else:
        assert str(raised.value) == "the engine has failed: RuntimeError: out of memory" and "Traceback" in said


def test_a_request_that_takes_too_long(served_here):
    """It is given up with 504, streamed or not."""
    replies = {}

    def ask(server):
        replies["whole"] = server.ask(CHAT, LEAST)
        with server.raw(server.written(CHAT, LEAST | {"stream": True})) as connection:
            *_, replies["streamed"] = frames(connection)
        wait_until(lambda: server.ask("/health").json["waiting"] == 0)
        os.kill(os.getpid(), signal.SIGTERM)

    served_here(Stuck(), ask, limits={"request_seconds": 1.0})
    assert replies["whole"].status == 504
    assert replies["whole"].json["error"]["message"] == "the request has taken longer than 1 seconds"
    assert replies["streamed"]["error"]["type"] == "timeout_error"


def test_another_server_that_listens_first(model):
    """Both have bound the address while they loaded their models, which the system allows."""
    bound = bind("127.0.0.1", 0)
    address = bound.getsockname()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(address)
        other.listen()
        with pytest.raises(UserError, match="cannot listen on 127.0.0.1, port"):
            serve(offer(), model.engine(256, 4, scores=True), Stuck(), (), bound)
