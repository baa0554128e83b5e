"""Bad input over the socket, clients that hang up or do not read, and too many of them: the server lives."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading

import pytest

from tests.serving.running import (
    ASKED,
    CHAT,
    KEY,
    MESSAGES,
    NAME,
    TEXT,
    chat,
    frames_of,
    question,
    wait_until,
)

LEAST = {"model": NAME, "messages": ASKED}
ENDLESS = LEAST | {"n": 1500, "temperature": 1.0, "thinking": {"min_tokens": 200}}  # minutes of work
SOON = 20.0  # seconds: a small part of what ENDLESS takes
MEGABYTE = 2**20
IDLE = 1000  # connections


@pytest.fixture(autouse=True)
def it_lives(server):
    """After each test the server is idle and answers as it should."""
    yield
    server.wait_until_idle()
    reply = server.ask(CHAT, LEAST | {"max_tokens": 30})
    assert reply.status == 200 and reply.json["choices"][0]["message"]["content"]


def error_of(reply, status):
    """The message of an error in OpenAI's or Anthropic's form."""
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    message = reply.json["error"]["message"]
    assert message and message.isprintable()
    return message


BODIES = {
    "empty": b"",
    "half": b'{"model": "tiny", "messages": [',
    "a form": b"model=tiny&messages=hello",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "NaN": json.dumps(LEAST | {"temperature": float("nan")}).encode(),
    "an infinity": json.dumps(LEAST | {"temperature": 1}).replace("1}", "1e999}").encode(),
    "bytes": b"\xff\xfe\x00{}",
    "UTF-16": json.dumps(LEAST).encode("utf-16"),
    "a lone surrogate": rb'{"model": "tiny", "messages": [{"role": "user", "content": "\ud800"}]}',
    "a lone surrogate in a name": rb'{"model": "tiny", "messages": [], "\udfff": 1}',
    "a deep list": b'{"messages": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a long number": b'{"model": "tiny", "messages": [], "max_tokens": ' + b"9" * 100_000 + b"}",
    "two objects": b"{}{}",
    "a NUL": b'{"model": "tiny\x00"}',
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_body_that_is_no_request(server, kind, path):
    for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"):
        reply = server.ask(path, BODIES[kind], method="POST", **{"Content-Type": content_type})
        assert len(error_of(reply, 400)) < 500


def test_a_body_that_is_too_large(server):
    big = json.dumps(LEAST | {"user": "x" * 10 * MEGABYTE}).encode()
    assert "4,194,304 bytes" in error_of(server.ask(CHAT, big), 413)
    assert server.ask(MESSAGES, big).json["error"]["type"] == "request_too_large"
    with contextlib.closing(server.connection()) as connection:  # whose length is not told
        pieces = (big[i : i + 2**16] for i in range(0, len(big), 2**16))
        connection.request("POST", CHAT, pieces, server.headers(), encode_chunked=True)
        assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/v2/chat/completions", 404), ("POST", "/v1/embeddings", 404), ("GET", "/v1/models/other", 404)),
        *(("GET", "/../../etc/passwd", 404), ("GET", "/%00", 404), ("GET", "/v1/models/%ff", 404)),
        *(("GET", CHAT, 405), ("DELETE", TEXT, 405), ("POST", "/v1/models", 405), ("BREW", "/health", None)),
    ],
)
def test_what_is_not_there(server, method, path, status):
    reply = server.ask(path, b"{}" if method == "POST" else None, method=method)
    if status is None:
        assert reply.status in (400, 405)
    else:
        assert error_of(reply, status)


RAW = {
    "a request line of 1 MB": b"GET /" + b"a" * MEGABYTE + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header of 1 MB": b"GET /nothing HTTP/1.1\r\nHost: x\r\nX: " + b"a" * MEGABYTE + b"\r\n\r\n",
    "a million headers": b"GET /nothing HTTP/1.1\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n",
    "another version": b"GET /health HTTP/9.9\r\n\r\n",
    "a wrong length": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "two lengths": b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    "a wrong chunk": b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("kind", RAW)
def test_what_is_no_request_at_all(server, kind):
    """A status from 400 to 499, or a closed connection."""
    with server.raw() as connection:
        with contextlib.suppress(OSError):  # it may be refused before all of it is read
            connection.sendall(RAW[kind])
            connection.shutdown(socket.SHUT_WR)
        try:
            said = connection.recv(MEGABYTE)
        except ConnectionError:
            said = b""
    assert not said or (said.startswith(b"HTTP/1.1 4") and b"\r\n" in said)


@pytest.mark.parametrize("begun", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n"], ids=repr)
def test_a_head_without_an_end_is_cut(server, begun):
    piece = (b"A: b\r\n" if begun.endswith(b"\n") else b"aaaaaa") * (MEGABYTE // 6)
    with server.raw(begun) as connection, pytest.raises(ConnectionError):
        for _ in range(64):
            connection.sendall(piece)


def test_keys_are_compared_whole(server):
    for key in (None, "x", KEY[:-1], KEY + "x", KEY.upper(), "\xe9", "x" * 10_000):
        reply = server.ask(CHAT, LEAST, key=key)
        assert "a key is needed" in error_of(reply, 401)
    both = server.ask(CHAT, LEAST | {"max_tokens": 5}, key=None, **{"x-api-key": KEY})
    assert both.status == 200
    for path in ("/", "/health", "/metrics"):
        assert server.ask(path, key=None).status == 200, "these tell nothing of the model or its prompts"
    assert server.ask("/v1/models", key=None).status == 401


@pytest.fixture
def many_files():
    """As many open files as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_pages_of_other_sites_may_not_ask(server):
    """A browser sends such a request without asking first, where its body claims to be plain text."""
    foreign = {"Origin": "https://example.org", "Content-Type": "text/plain"}
    assert "--cors-origins" in error_of(server.ask(CHAT, LEAST | {"max_tokens": 30}, **foreign), 403)
    own = f"http://{server.host}:{server.port}"
    assert server.ask(CHAT, LEAST | {"max_tokens": 30}, Origin=own).status == 200


def test_a_thousand_idle_connections(server):
    begun = (b"", b"GET /hea", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 999\r\n\r\n{")
    with contextlib.ExitStack() as held:
        for number in range(IDLE):
            held.enter_context(server.raw(begun[number % len(begun)]))
        assert server.ask(CHAT, LEAST | {"max_tokens": 30}).status == 200
        assert server.ask("/health").status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up(server, stream):
    """In the middle of its stream, or before its answer: its choices are decoded no further."""
    before = server.count("s1_jax_requests_total", path=CHAT, status="499")
    with server.raw(server.written(CHAT, ENDLESS | {"stream": stream})) as connection:
        wait_until(lambda: server.ask("/health").json["running"] > 0)
        if stream:
            assert connection.recv(9) == b"HTTP/1.1 "
    server.wait_until_idle(SOON)
    assert server.count("s1_jax_requests_total", path=CHAT, status="499") == before + 1


def test_clients_that_hang_up_while_they_wait(server):
    with server.raw(server.written(CHAT, ENDLESS | {"n": 200, "stream": True})) as first:
        first.recv(9)
        for _ in range(20):
            server.raw(server.written(CHAT, LEAST)).close()
        wait_until(lambda: server.ask("/health").json["waiting"] < 200)
    server.wait_until_idle(SOON)


def test_clients_that_hang_up_before_they_have_asked(server):
    """In the middle of a body, with and without its length."""
    whole = server.written(CHAT, LEAST)
    for count in (10, len(whole) // 2, len(whole) - 1):
        server.raw(whole[:count]).close()
    before = server.count("s1_jax_requests_total", path=TEXT, status="499")
    server.raw(b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc").close()  # without a key
    begun = f"POST {TEXT} HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"
    server.raw(begun.encode()).close()
    wait_until(lambda: server.count("s1_jax_requests_total", path=TEXT, status="499") == before + 1)


def test_a_slow_reader_stalls_nobody(server, client):
    """Megabytes wait for a client that reads none of them; when it does, they are all there."""
    asked = LEAST | {"n": 32, "temperature": 2.0, "thinking": {"min_tokens": 150}}
    asked |= {"stream": True, "logprobs": True, "top_logprobs": 20}
    with server.raw(server.written(CHAT, asked), receive_buffer=4096) as slow:
        wait_until(lambda: server.ask("/health").json["running"] > 0)
        for _ in range(3):
            assert chat(client, question("a+1")).choices[0].message.content
        server.wait_until_idle()  # all of it has been decoded
        size = 0
        with slow.makefile("rb") as stream:
            ended = set()
            for frame in frames_of(stream):
                size += len(json.dumps(frame))
                if frame == "[DONE]":
                    break
                ended |= {choice["index"] for choice in frame["choices"] if choice["finish_reason"]}
    assert ended == set(range(32)) and size > 8 * MEGABYTE, "more than any buffer on the way holds"


def test_many_at_once_with_few_words(server):
    """A crowd of short requests: each is answered, or told to come again."""
    statuses = []

    def ask():
        statuses.append(server.ask(TEXT, {"model": NAME, "prompt": "a", "max_tokens": 2, "n": 20}).status)

    crowd = [threading.Thread(target=ask) for _ in range(40)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert len(statuses) == 40 and set(statuses) <= {200, 429} and 200 in statuses
