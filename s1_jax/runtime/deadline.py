"""HTTP requests with one deadline for everything: connecting, TLS, sending, headers and body.

A socket's own timeout applies to each wait, so a peer that sends a byte now and then can hold a request for ever. Here
each wait gets only the time that is left. The lookup of the host's name is bounded by the system alone.
"""

from __future__ import annotations

import http.client
import io
import socket
import urllib.request
from collections.abc import Callable
from typing import Any

Clock = Callable[[], float]  # seconds


def opener(clock: Clock, proxies: bool) -> Callable[..., Any]:
    """Return a function that sends a request and returns the response.

    Its argument `timeout` covers everything up to the last byte of the body. Redirects are not followed. `proxies` says
    whether the proxies of the environment are used. The function raises as urllib does: HTTPError for a status that is
    not 2xx, OSError, http.client.HTTPException, and ValueError for a response that cannot be parsed.
    """
    direct = [] if proxies else [urllib.request.ProxyHandler({})]
    return urllib.request.build_opener(_Http(clock), _Https(clock), _NoRedirect, *direct).open


class _Connection(http.client.HTTPConnection):
    """A connection that expires `timeout` seconds after it was made."""

    def __init__(self, host: str, *, timeout: float, clock: Clock, **options: Any) -> None:
        super().__init__(host, timeout=timeout, **options)
        self._clock, self._until = clock, clock() + timeout
        self._create_connection = self._connected
        self.response_class = self._response  # type: ignore[assignment]

    def send(self, data: Any) -> None:
        """Send all of `data`, however slowly the peer accepts it. Raises TimeoutError."""
        if self.sock is None:
            self.connect()
        rest = memoryview(data)
        while rest:
            self.sock.settimeout(self._left())
            rest = rest[self.sock.send(rest) :]

    def _left(self) -> float:
        left = self._until - self._clock()
        if left <= 0:
            raise TimeoutError
        return left

    def _connected(self, address: tuple[str, int], *rest: Any) -> socket.socket:
        """Connect to the first address of the host that answers; the time left bounds a TLS handshake."""
        failed = OSError(f"{address[0]} has no address")
        for family, kind, protocol, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(self._left())
                made.connect(place)
                made.settimeout(self._left())
                return made
            except OSError as error:
                made.close()
                failed = error
        raise failed

    def _response(self, sock: Any, *args: Any, **options: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Reader(sock, self._left), *args, **options)  # type: ignore[arg-type]


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    """A connection over TLS, whose handshake in C applies the socket's timeout to the whole of it."""


class _Reader(io.RawIOBase):
    """A reader that stands in for the socket of a response, and bounds each wait by the time left."""

    def __init__(self, sock: Any, left: Callable[[], float]) -> None:
        self._sock, self._left = sock, left
        self._file = sock.makefile("rb", buffering=0)  # keeps the socket open for as long as the response is

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._left())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Http(urllib.request.HTTPHandler):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Connection, request, clock=self._clock)  # type: ignore[arg-type]


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, request, clock=self._clock)  # type: ignore[arg-type]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, because the key is meant only for the host that the user named."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> None:
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302
