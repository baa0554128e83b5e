"""From a socket to the end of the process: who listens, what signals do, and how the server ends."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from s1_jax.decoding.engine import Engine
from s1_jax.decoding.queue import Queue
from s1_jax.errors import RunError, UserError
from s1_jax.runtime.signals import STOPS, end_now
from s1_jax.runtime.terminal import say
from s1_jax.serving.app import Server
from s1_jax.serving.errors import ApiError
from s1_jax.serving.generation import Terms
from s1_jax.serving.worker import Worker

BACKLOG = 2048  # connections that may wait to be accepted
MOST_HEAD_BYTES = 2**16  # of a request line with its headers; what comes at once may be a few times that
KEEP_ALIVE_SECONDS = 60  # for which a connection without a request stays open
LAST_SECONDS = 3.0  # for the last replies of a server that ends, after its requests have ended
PAUSE = 0.02  # seconds between two looks at whether something has happened


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket to an address, before a model is loaded for it. Raises UserError where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    return bound


def url_of(bound: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(terms: Terms, engine: Engine, queue: Queue, keys: Sequence[str], bound: socket.socket) -> None:
    """Serve until a signal ends the server. Raises RunError where the engine fails, UserError as `bind` does."""
    try:  # another process may have bound the address too, and listens by now; uvloop would not say so
        bound.listen(BACKLOG)
    except OSError as error:
        host, port = bound.getsockname()[:2]
        raise _cannot_listen(host, port, error) from None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each connection is an open file
    try:
        uvloop.run(_serve(terms, engine, queue, tuple(keys), bound))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Protocol(HttpToolsProtocol):
    """Uvicorn's protocol of one connection, which bounds the request line and the headers too."""

    _head: int | None = None  # bytes of the request whose headers have not ended yet; None: there is none

    def data_received(self, data: bytes) -> None:
        """Read what has come, and close the connection of a request that has come to too much without a body."""
        super().data_received(data)
        if self._head is None:
            return
        self._head += len(data)
        if self._head > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"the request line and the headers have more than {MOST_HEAD_BYTES:,} bytes")

    def on_message_begin(self) -> None:
        """Start counting."""
        super().on_message_begin()
        self._head = 0

    def on_headers_complete(self) -> None:
        """Stop counting."""
        super().on_headers_complete()
        self._head = None


class _Uvicorn(uvicorn.Server):
    """Uvicorn without signal handlers of its own, which would raise what they heard once more."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(terms: Terms, engine: Engine, queue: Queue, keys: tuple[str, ...], bound: socket.socket) -> None:
    ending = asyncio.Event()
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        server.close(ApiError(500, "the engine has failed; the server is ending"))
        ending.set()

    worker = Worker(engine, queue, failed)
    server = Server(terms, worker, keys)
    listener = _Uvicorn(
        uvicorn.Config(
            server.app(),
            http=_Protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,  # the default one would close the handlers that others have set up
            log_level="error",
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(LAST_SECONDS),
        )
    )

    def hear(number: int) -> None:
        if ending.is_set():
            end_now(number)
        server.draining = True
        ending.set()
        stop = STOPS[number].name
        count = len(worker.open)
        seconds = terms.config.drain_seconds
        waits = f"; finishing {count} requests within {seconds:g} seconds" if count else ""
        say(f"received {stop}{waits}", file=sys.stderr, flush=True)

    loop = asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, hear, number)
    worker.start()
    listening = asyncio.create_task(listener.serve(sockets=[bound]))
    while not (listener.started or listening.done()):
        await asyncio.sleep(PAUSE)
    say(f"ready at {url_of(bound)}", file=sys.stderr, flush=True)
    reporting = asyncio.create_task(server.report())
    await ending.wait()
    reporting.cancel()
    await _drain(server, terms.config.drain_seconds)
    listener.should_exit = True
    await listening
    worker.end()
    await asyncio.to_thread(worker.join, LAST_SECONDS)
    for number in STOPS:
        loop.remove_signal_handler(number)
        signal.signal(number, lambda number, frame: end_now(number))
    if failures:
        raise _failure(failures[0])


async def _drain(server: Server, seconds: float) -> None:
    """Wait until the requests that run have ended, and give up those that take longer."""
    open_jobs, loop = server.worker.open, asyncio.get_running_loop()
    until = loop.time() + (0.0 if server.closed else seconds)
    while open_jobs and loop.time() < until:
        await asyncio.sleep(PAUSE)
    if open_jobs and not server.closed:
        server.close(ApiError(503, "the server has ended before this request"))
    until = loop.time() + LAST_SECONDS
    while open_jobs and loop.time() < until:
        await asyncio.sleep(PAUSE)


def _cannot_listen(host: str, port: int, error: OSError) -> UserError:
    return UserError(
        f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another --host or --port"
    )


def _failure(error: BaseException) -> RunError:
    if isinstance(error, RunError):
        return error
    traceback.print_exception(error, file=sys.stderr)
    return RunError(f"the engine has failed: {type(error).__name__}: {' '.join(str(error).split())}")
