"""A server in a process of its own, with the tiny model that ships, and plain ways to ask it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from tests.runs import BASE, PATIENCE, PROJECT

NAME = "tiny"
MAX_MODEL_LEN = 256
KEY, KEY_VARIABLE = "sk-of-the-tests", "S1_JAX_TEST_KEYS"
MOST_CHOICES, MOST_WAITING = 2000, 256
SMALLEST = ("--max-model-len", "128", "--batch-size", "1", "--prefix-cache-tokens", "0")  # is compiled the soonest
SIZES = ("--max-model-len", str(MAX_MODEL_LEN), "--batch-size", "4", "--prefix-cache-tokens", "512")
CHAT, TEXT, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
ASKED = [{"role": "user", "content": "What is 2 + 2?"}]


def question(steps: str, start: int = 7) -> list[dict[str, str]]:
    """A chat with a question of the kind that the tiny model has learned, such as "a+2 b-3"."""
    return [{"role": "user", "content": f"Start: {start:02}. Steps: {steps}. Result mod 100?"}]


class Answer(NamedTuple):
    """A reply to one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Running:
    """A server that is ready, at `url`; `said` has the lines of its standard error."""

    def __init__(self, *options: str, key: str | None = None) -> None:
        environment = dict(os.environ, PYTHONPATH=str(PROJECT), JAX_PLATFORMS="cpu")
        # devices as in this process, so that both find the programs in the cache that the other has compiled
        environment |= {"JAX_DEFAULT_MATMUL_PRECISION": "float32", "JAX_NUM_CPU_DEVICES": str(jax.device_count())}
        if key is not None:
            environment[KEY_VARIABLE] = key
            options = ("--api-key-variable", KEY_VARIABLE, *options)
        self.key = key
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "s1_jax.serve", "--model.path", str(BASE), "--served-model-name", NAME),
                *("--port", "0", "--mesh.fsdp", "1", *options),
            ],
            env=environment,
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self.url = self.wait_for("ready at ").split()[-1]
        except BaseException:
            self.process.kill()
            raise
        self.host, port = self.url.removeprefix("http://").split(":")
        self.port = int(port)

    def _listen(self) -> None:
        for line in self.process.stderr:  # type: ignore[union-attr]
            self.said.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, words: str) -> str:
        """The next line of standard error that begins with these words."""
        until = time.monotonic() + PATIENCE
        while True:
            line = self._lines.get(timeout=max(until - time.monotonic(), 0.1))
            assert line is not None, f"the server has ended: {''.join(self.said)}"
            if line.startswith(words):
                return line

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def ends(self) -> int:
        """The exit code, once the process has ended."""
        return self.process.wait(PATIENCE)

    def ask(
        self, path: str, body: Any = None, method: str | None = None, key: str | None = "", **headers: str
    ) -> Answer:
        """The reply to one request over a connection of its own; `key` is the server's own if it is empty."""
        with contextlib.closing(self.connection()) as connection:
            given = self.headers(key) | headers
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method or ("GET" if body is None else "POST"), path, data, given)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    def connection(self) -> http.client.HTTPConnection:
        """A connection that has not been opened yet."""
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)

    def headers(self, key: str | None = "") -> dict[str, str]:
        """The headers of a request."""
        key = self.key if key == "" else key
        return {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})

    def raw(self, data: bytes = b"", receive_buffer: int | None = None) -> socket.socket:
        """A socket over which these bytes have been sent."""
        made = socket.socket()
        made.settimeout(PATIENCE)
        if receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.connect((self.host, self.port))
        made.sendall(data)
        return made

    def written(self, path: str, body: Any) -> bytes:
        """A whole POST request as it goes over the socket."""
        data = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in self.headers().items()]
        return "\r\n".join([*lines, "", ""]).encode() + data

    def count(self, name: str, **labels: str) -> float:
        """A number of /metrics; 0 where it is not there yet."""
        inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
        wanted = f"{name}{{{inside}}}" if labels else name
        lines = self.ask("/metrics").body.decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.rpartition(" ")[0] == wanted), 0.0)

    def wait_until_idle(self, seconds: float = PATIENCE) -> None:
        """Wait until no choice is decoded or waits."""
        wait_until(lambda: self.ask("/health").json == {"status": "ready", "running": 0, "waiting": 0}, seconds)


@contextlib.contextmanager
def started(*options: str, key: str | None = None) -> Iterator[Running]:
    """Within: a server of the tiny model; afterwards it is ended, and must have failed at nothing."""
    server = Running(*options, key=key)
    try:
        yield server
        if server.process.poll() is None:
            server.terminate()
        assert server.ends() == 0, "".join(server.said)
        said = "".join(server.said)
        assert "Traceback" not in said and "\nerror:" not in said, said
    finally:
        server.process.kill()
        server.process.wait()


def wait_until(there: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.02)


def frames_of(stream: Any) -> Iterator[Any]:
    """The data of server-sent events of a response that is read line by line, until it ends."""
    for line in stream:
        if line.startswith(b"data: "):
            data = line[6:].strip()
            yield data.decode() if data == b"[DONE]" else json.loads(data)


def joined_parts(chunks: Sequence[Any], choice: int = 0) -> dict[str, str]:
    """The texts of one choice of a chat, joined from the deltas of the official client's chunks."""
    texts = {"reasoning_content": "", "reasoning": "", "content": ""}
    for chunk in chunks:
        for one in chunk.choices:
            if one.index == choice:
                for name in texts:
                    texts[name] += getattr(one.delta, name, None) or ""
    return texts


def chat(client: Any, messages: Sequence[Any] = ASKED, extra: Mapping[str, Any] | None = None, **given: Any) -> Any:
    """Ask for a chat with OpenAI's official client, greedily unless `given` says otherwise."""
    fields = {"temperature": 0, "extra_body": dict(extra or {})} | given
    return client.chat.completions.create(model=NAME, messages=messages, **fields)
