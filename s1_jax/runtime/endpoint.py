"""Client of a model behind OpenAI's HTTP protocol, with a rate limit and retries."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

from s1_jax.config import EndpointConfig
from s1_jax.config.endpoint_url import is_here
from s1_jax.errors import RunError, UserError
from s1_jax.runtime.completion import Reply, complaint, hidden, parse, without_key
from s1_jax.runtime.deadline import opener
from s1_jax.runtime.json_input import loads

LONGEST_REPLY = 2**25  # bytes: far more than 32K tokens of any script, escaped
PIECE = 2**16  # bytes read at a time
LONGEST_PAUSE = 60.0  # seconds between two attempts
LONGEST_ASKED = 300.0  # seconds between two attempts where the endpoint asks for a pause
PASSING = {408, 409, 425, 429}  # statuses that are worth another attempt, as all of 5xx are
OF_THE_PROMPT = {400, 413, 422}  # statuses that concern this prompt alone: too long, or refused
EMPTY_TRIES = 3  # attempts at a prompt whose reply has no text
EMPTY = "an empty answer"
POLL = 0.1  # seconds between two checks whether to stop
LONGEST_ERROR = 2**16  # bytes that are read of an error's body
LIMIT, NEWER_LIMIT = "max_tokens", "max_completion_tokens"  # fields of a request; newer models refuse the first one
ADVICE = (  # (field that an endpoint names when it refuses a request, the option that changes it)
    ("temperature", "the option temperature None leaves it out"),
    (LIMIT, "options: max_tokens, max_tokens_field"),
    (NEWER_LIMIT, "options: max_tokens, max_tokens_field"),
    ("context length", "options: max_tokens, max_tokens_field"),
)


class NoAnswer(RunError):
    """Reason why a prompt has no reply.

    `for_all` says that no other prompt would get one either, `of_prompt` that the prompt itself was refused.
    """

    def __init__(self, who: str, reason: str, for_all: bool, of_prompt: bool = False) -> None:
        super().__init__(f"{who} does not answer ({reason}); earlier replies are saved")
        self.reason, self.for_all, self.of_prompt = reason, for_all, of_prompt


class Endpoint:
    """Client of one model; `name` is what errors call it. Threads that ask at once share its rate limit and pauses.

    Once `enough` is set, no further request is made, and requests in progress still finish. Raises UserError if the key
    contains characters that no request can carry.
    """

    def __init__(
        self,
        options: EndpointConfig,
        name: str,
        sleep: Callable[[float], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert options.base_url is not None
        self._options, self._key = options, os.environ.get(options.key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            raise UserError(
                f"the key in {options.key_variable} contains characters that no key has (white space, non-ASCII)"
            )
        self._who = without_key(f"{name} at {options.base_url}", self._key)
        self._url = options.base_url.rstrip("/") + "/chat/completions"
        # a proxy is another machine, so requests to this machine bypass it
        self._open = opener(clock, proxies=not is_here(self._url))
        self._limit = LIMIT if options.max_tokens_field == "auto" else options.max_tokens_field
        self.enough = threading.Event()
        self._sleep, self._clock = sleep or self.enough.wait, clock
        self._lock, self._next = threading.Lock(), -float("inf")

    def ask(self, prompt: str, *, temperature: float | None, max_tokens: int) -> Reply:
        """Return the reply to one user message; a temperature of None is left out of the request.

        Raises NoAnswer if every attempt failed, or one failed for good; it quotes the endpoint, without the key.
        """
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]}
        asked |= {} if temperature is None else {"temperature": temperature}
        failure, for_all, of_prompt, attempt = "", False, False, 0
        while attempt < self._options.attempts:
            self._take_turn()
            pause, limit = 0.0, self._limit
            try:
                return self._reply(asked if limit == "none" else asked | {limit: max_tokens})
            except urllib.error.HTTPError as error:
                said = self._said(error)
                if self._takes_newer_limit(error.code, said, limit):
                    continue
                pause = asked_pause(error.headers)
                failure = f"status {error.code}" + (f", wait {pause:,.0f} seconds" if pause > LONGEST_ASKED else "")
                if words := complaint(said, self._key):
                    failure += f": {words}"
                if error.code < 500 and error.code not in PASSING:
                    of_prompt = error.code in OF_THE_PROMPT
                    for_all = not of_prompt
                    failure += advice(words) if of_prompt else ""
                    break
            except (OSError, http.client.HTTPException, ValueError) as error:  # refused, cut off, timed out, not HTTP
                reason = getattr(error, "reason", error)
                failure = type(reason if isinstance(reason, Exception) else error).__name__
            except _NoCompletion as error:
                failure = ": ".join(
                    filter(None, ("not a completion in OpenAI's form", complaint(error.said, self._key)))
                )
            attempt += 1
            if attempt < self._options.attempts:
                pause = min(pause, LONGEST_ASKED)
                self._hold(pause)
                self._wait(max(min(2.0 ** (attempt - 1), LONGEST_PAUSE), pause))
        raise NoAnswer(self._who, failure, for_all, of_prompt)

    def ask_many(
        self,
        prompts: Sequence[str],
        *,
        temperature: float | None,
        max_tokens: int,
        concurrent: int,
        asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Reply | NoAnswer]]:
        """Yield replies with the indices of their prompts, in order of arrival, `concurrent` requests at a time.

        When asked to stop, it yields the replies that have arrived and ends; no further request is made after that.
        """
        left, turn = iter(range(len(prompts))), threading.Lock()
        # not a SimpleQueue: its `get` waits for ever if a signal handler outlasts the timeout (Python 3.11)
        found: queue.Queue[tuple[int, Reply | NoAnswer] | BaseException | None] = queue.Queue()

        def work() -> None:
            try:
                while not self.enough.is_set():
                    with turn:
                        place = next(left, None)
                    if place is None:
                        break
                    found.put((place, self._ask_again(prompts[place], temperature, max_tokens)))
            except _Enough:
                pass
            except BaseException as error:
                found.put(error)
            found.put(None)

        threads = min(concurrent, len(prompts))
        for _ in range(threads):  # daemons, so that the process can end without waiting for them
            threading.Thread(target=work, daemon=True).start()
        try:
            while threads and not (asked_to_stop() and found.empty()):
                try:
                    said = found.get(timeout=POLL)
                except queue.Empty:
                    continue
                if isinstance(said, BaseException):
                    raise said
                if said is None:
                    threads -= 1
                else:
                    yield said
                if asked_to_stop():
                    self.enough.set()
        finally:
            self.enough.set()

    def _ask_again(self, prompt: str, temperature: float | None, max_tokens: int) -> Reply | NoAnswer:
        """Return a reply that has a text, or why there is none."""
        try:
            for _ in range(EMPTY_TRIES):
                reply = self.ask(prompt, temperature=temperature, max_tokens=max_tokens)
                if reply.text or reply.finish != "stop":
                    return reply
        except NoAnswer as error:
            return error
        return NoAnswer(self._who, EMPTY, for_all=False, of_prompt=True)

    def _take_turn(self) -> None:
        """Wait until the rate limit allows a request, and until a pause that the endpoint asked for is over."""
        while True:
            with self._lock:
                now = self._clock()
                if now >= self._next:
                    self._next = now + 60 / self._options.requests_per_minute
                    return
                wait = self._next - now
            self._wait(wait)

    def _hold(self, seconds: float) -> None:
        """Keep all threads from sending requests for this many seconds."""
        if seconds:
            with self._lock:
                self._next = max(self._next, self._clock() + seconds)

    def _wait(self, seconds: float) -> None:
        self._sleep(seconds)
        if self.enough.is_set():
            raise _Enough

    def _takes_newer_limit(self, status: int, said: bytes, limit: str) -> bool:
        """Whether the endpoint wants the newer name of `max_tokens`, which all later requests then use."""
        chosen = self._options.max_tokens_field == "auto" and limit == LIMIT
        if not (chosen and status in OF_THE_PROMPT and NEWER_LIMIT.encode() in said):
            return False
        self._limit = NEWER_LIMIT
        return True

    def _said(self, error: urllib.error.HTTPError) -> bytes:
        """Return the body of an error; empty if it cannot be read in time."""
        try:
            return _read(error.fp, LONGEST_ERROR)
        except (OSError, http.client.HTTPException, AttributeError, ValueError):
            return b""
        finally:
            error.close()

    def _reply(self, asked: Mapping[str, Any]) -> Reply:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        body = json.dumps({"model": self._options.model, **asked}).encode()
        request = urllib.request.Request(self._url, body, headers)
        with self._open(request, timeout=self._options.timeout_seconds) as response:
            read = _read(response, LONGEST_REPLY)
        try:
            return hidden(parse(loads(read)), self._key)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _NoCompletion(read) from None


def _read(response: Any, most: int) -> bytes:
    """Read the whole body, or at least `most` bytes of a longer one."""
    body = bytearray()
    while len(body) <= most and (piece := response.read1(PIECE)):
        body += piece
    return bytes(body)


def asked_pause(headers: Mapping[str, str] | Message) -> float:
    """Return the seconds of pause that a response's Retry-After asks for, as a number or an HTTP date; else 0.

    A date is compared with the response's own date if it has one, because the two clocks may differ.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", value):
        return float(value)
    until, now = _timestamp(value), _timestamp(headers.get("Date", ""))
    return 0.0 if until is None else max(until - (time.time() if now is None else now), 0.0)


def advice(words: str) -> str:
    """Name the options that change the field which an endpoint's message names; empty where it names none."""
    told = dict.fromkeys(text for field, text in ADVICE if re.search(rf"\b{field}\b", words))
    return f" ({'; '.join(told)})" if told else ""


def _timestamp(date: str) -> float | None:
    """Return the Unix time of an HTTP date; one form of such dates names no time zone."""
    try:
        parsed = parsedate_to_datetime(date)
        return parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp()
    except (
        ValueError,
        OverflowError,
        TypeError,
        LookupError,
    ):  # the parser raises the last two on some malformed dates
        return None


class _Enough(Exception):
    """Raised in a thread once no further request may be made."""


class _NoCompletion(Exception):
    """Raised for a body that is not a completion; it may contain an error message instead."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.said = body if b'"error"' in body[:LONGEST_ERROR] else b""
