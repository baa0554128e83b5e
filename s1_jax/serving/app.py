"""The web application: from an HTTP request to a job of the engine's thread, and back."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from s1_jax.errors import UserError
from s1_jax.runtime.json_input import loads
from s1_jax.runtime.terminal import say
from s1_jax.serving import anthropic
from s1_jax.serving.choices import count_prompt
from s1_jax.serving.conversation import Prompt
from s1_jax.serving.errors import ApiError, openai_error, refusal
from s1_jax.serving.events import ChoiceEvents, prompt_events
from s1_jax.serving.fronts import FRONTS, Front, Reply
from s1_jax.serving.generation import Event, Finish, Generation, Terms
from s1_jax.serving.metrics import Metrics
from s1_jax.serving.page import page
from s1_jax.serving.worker import Job, Worker

COUNT_TOKENS = "/v1/messages/count_tokens"
BODY_SECONDS = 60.0  # within which a body has to come
RETRY_SECONDS = 2  # after which a client that was refused for load may come again
TELL_SECONDS = 1.0  # for a client to read that its request is given up
HUNG_UP = 499  # the status, as nginx names it, of a request whose client has gone
SSE = "text/event-stream; charset=utf-8"


class Asked(NamedTuple):
    """A request whose body has been read."""

    generation: Generation
    job: Job


class Server:
    """The application's state: what it offers, the engine's thread, and whether it still takes requests."""

    def __init__(self, terms: Terms, worker: Worker, keys: tuple[str, ...]) -> None:
        self.terms, self.worker, self._keys = terms, worker, keys
        self.draining = False
        self._reading_seconds = 0.0  # of processor time, in threads that read bodies
        self.closed: ApiError | None = None  # what open and new requests are told, once the server has ended
        self.metrics = Metrics(
            {
                "running": ("Choices that are being decoded.", lambda: worker.running),
                "waiting": ("Choices that wait for a row of the batch.", lambda: worker.waiting),
                "http_cpu_seconds": ("Processor seconds of all but the engine's thread.", self._cpu_seconds),
            }
        )

    def _cpu_seconds(self) -> float:
        return time.thread_time() + self._reading_seconds  # called in the event loop's thread

    async def report(self) -> None:
        """Print a line about the load every `log_seconds`, while there is any."""
        seconds, before = self.terms.config.log_seconds, 0
        while seconds:
            await asyncio.sleep(seconds)
            now = self.worker.decoded_tokens
            if now > before:
                load = f"{self.worker.running} running, {self.worker.waiting} waiting"
                say(f"{load}, {(now - before) / seconds:,.0f} tokens/s", file=sys.stderr, flush=True)
            before = now

    def app(self) -> Starlette:
        """Return the web application, with a route for each path."""
        routes = [
            *(Route(path, self._generate, methods=["POST"]) for path in FRONTS),
            Route(COUNT_TOKENS, self._count_tokens, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route("/health", self._health),
            Route("/metrics", lambda request: Response(self.metrics.text(), media_type="text/plain; version=0.0.4")),
            Route("/", lambda request: Response(page(), media_type="text/html")),
        ]
        origins = self.terms.config.cors_origins
        cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
        handlers: Any = {HTTPException: self._refuse, ApiError: self._error, Exception: self._crash}
        handlers[ClientDisconnect] = self._gone
        return Starlette(routes=routes, middleware=[cors] if origins else [], exception_handlers=handlers)

    def close(self, error: ApiError) -> None:
        """Answer all open requests with an error, and new ones too; called once, in the event loop."""
        self.closed = error
        for job in list(self.worker.open):
            job.hang_up()

    async def _generate(self, request: Request) -> Response:
        front, began = FRONTS[request.url.path], time.perf_counter()
        asked = await self._asked(request, front)
        job, worker = asked.job, self.worker
        worker.submit(job)
        reply = front.reply(asked.generation, self.terms)
        answer = Answer(self, request, front, job, reply, began)
        return answer

    async def _asked(self, request: Request, front: Front) -> Asked:
        self._admit(request)
        body = await self._body(request)

        def read() -> Asked:
            began = time.thread_time()
            try:
                generation = front.read(body, self.terms)
                return Asked(generation, self.worker.prepare(generation))
            except UserError as error:
                raise refusal(error, self.terms) from None
            finally:
                self._reading_seconds += time.thread_time() - began

        asked = await run_in_threadpool(read)
        self._make_room(len(asked.generation.requests))
        if self.terms.config.log_prompts:
            for one in dict.fromkeys(request.prompt_token_ids for request in asked.generation.requests):
                say(f"prompt: {self.terms.tokenizer.decode(one)!r}", file=sys.stderr)
        return asked

    def _admit(self, request: Request) -> None:
        """Check the key and whether requests are still taken. Raises ApiError."""
        self._check_origin(request)
        if self._keys and not any(hmac.compare_digest(_key(request), key.encode()) for key in self._keys):
            raise ApiError(401, "a key is needed: send Authorization: Bearer KEY or x-api-key: KEY")
        if self.closed is not None:
            raise self.closed
        if self.draining:
            raise ApiError(503, "the server is ending; it takes no more requests")

    def _check_origin(self, request: Request) -> None:
        """Raise ApiError on a request of another site's page; a browser sends simple ones without asking first."""
        origin, origins = request.headers.get("origin"), self.terms.config.cors_origins
        if origin is None or origin in origins or "*" in origins:
            return
        if urlsplit(origin).netloc != request.headers.get("host"):
            raise ApiError(403, f"pages of {origin[:100]} may not use this server; --cors-origins allows them")

    def _make_room(self, choices: int) -> None:
        config, there = self.terms.config, self.worker.open_choices
        if there and there + choices > config.batch_size + config.limits.max_waiting:
            raise ApiError(429, f"{there} choices are being decoded or wait already; try again later")

    async def _body(self, request: Request) -> Mapping[str, Any]:
        most, pieces, size = self.terms.config.limits.max_body_bytes, [], 0
        with suppress(ValueError):
            if int(request.headers.get("content-length", 0)) > most:
                raise ApiError(413, f"the body is larger than {most:,} bytes")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in request.stream():
                    size += len(piece)
                    if size > most:
                        raise ApiError(413, f"the body is larger than {most:,} bytes")
                    pieces.append(piece)
        except TimeoutError:
            raise ApiError(408, f"the body has not come within {BODY_SECONDS:g} seconds") from None
        try:
            body = loads(b"".join(pieces).decode())
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"the body is {' '.join(str(error).split())}") from None
        if not isinstance(body, dict):
            raise ApiError(400, "the body is no JSON object")
        return body

    async def _count_tokens(self, request: Request) -> Response:
        self._admit(request)
        body = await self._body(request)
        return JSONResponse(await run_in_threadpool(anthropic.count_tokens, body, self.terms))

    async def _models(self, request: Request) -> Response:
        self._admit(request)
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def _model(self, request: Request) -> Response:
        self._admit(request)
        if (name := request.path_params["name"]) != self.terms.model_name:
            raise ApiError(404, f"the model {name[:100]!r} does not exist", "model", "model_not_found")
        return JSONResponse(self._card())

    def _card(self) -> dict[str, Any]:
        config, budget = self.terms.config, self.terms.config.budget
        return {
            "id": self.terms.model_name,
            "object": "model",
            "created": self.terms.created,
            "owned_by": "s1_jax",
            "max_model_len": self.terms.max_model_len,
            "s1_jax": {
                "thinking": config.thinking,
                "max_thinking_tokens": config.limits.max_thinking_tokens,
                "max_num_ignore": config.limits.max_num_ignore,
                "budget": {
                    "max_tokens": budget.max_thinking_tokens,
                    "min_tokens": budget.min_thinking_tokens,
                    "num_ignore": budget.num_ignore,
                    "ignore_string": budget.ignore_string,
                },
                "sampling": {"temperature": config.sampling.temperature},
                "example": config.example,
            },
        }

    async def _health(self, request: Request) -> Response:
        status = "ending" if self.draining or self.closed else "ready"
        counts = {"running": self.worker.running, "waiting": self.worker.waiting}
        return JSONResponse({"status": status, **counts}, 200 if status == "ready" else 503)

    async def _error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        front = FRONTS.get(request.url.path)
        anthropics = request.url.path == COUNT_TOKENS
        body = front.error_body(error) if front else (anthropic.error_body if anthropics else openai_error)(error)
        headers = {"Retry-After": str(RETRY_SECONDS)} if error.status in (429, 503) else None
        self.metrics.answered(request.url.path if front or anthropics else "other", error.status)
        return JSONResponse(body, error.status, headers)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = ", ".join((*FRONTS, "/v1/models"))
        said = {
            404: f"there is nothing at this path; see {known}",
            405: f"{request.method} is not for this path; use {'POST' if request.method == 'GET' else 'GET'}",
        }
        return await self._error(request, ApiError(error.status_code, said.get(error.status_code, error.detail)))

    async def _gone(self, request: Request, error: Exception) -> Response:
        """Count a client that has hung up within its body; nobody reads this reply."""
        return await self._error(request, ApiError(HUNG_UP, "the client has hung up"))

    async def _crash(self, request: Request, error: Exception) -> Response:
        say(f"error: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return await self._error(request, ApiError(500, "the server has failed at this request"))


class Answer(Response):
    """The reply to one request, streamed or whole. Its client may hang up at any time."""

    def __init__(self, server: Server, request: Request, front: Front, job: Job, reply: Reply, began: float) -> None:
        self._server, self._path, self._front = server, request.url.path, front
        self._job, self._reply, self._began = job, reply, began
        self._streams, self.background = job.generation.stream, None
        self._status, self._started = 200, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the reply; the job is closed whatever happens."""
        hears = asyncio.create_task(self._hear(receive))
        try:
            async with asyncio.timeout(self._server.terms.config.limits.request_seconds):
                await (self._stream(send) if self._streams else self._whole(send))
        except TimeoutError:
            limit = self._server.terms.config.limits.request_seconds
            await self._fail(send, ApiError(504, f"the request has taken longer than {limit:g} seconds"))
        except ApiError as error:
            await self._fail(send, error)
        except (OSError, ClientDisconnect):
            self._status = HUNG_UP
        except asyncio.CancelledError:
            if self._server.closed is None:  # else the server ends, and the client has not read what it was sent
                raise
        finally:
            hears.cancel()
            self._server.worker.close(self._job)
            self._server.metrics.answered(self._path, self._status, time.perf_counter() - self._began)

    async def _hear(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._job.hang_up()

    async def _events(self) -> AsyncIterator[list[Event]]:
        """Yield the events as they come, several at once where they do. Raises ApiError where the engine has failed."""
        server, generation, job = self._server, self._job.generation, self._job
        texts = [self._choice_events(i) for i in range(len(generation.requests))]
        echoed = [not generation.echo] * len(texts)
        left, first = len(texts), True
        while left:
            arrived = [await job.news.get()]
            while not job.news.empty():
                arrived.append(job.news.get_nowait())
            if None in arrived:
                if server.closed is not None:
                    raise server.closed
                raise ClientDisconnect
            events: list[Event] = []
            for choice, news in (one for one in arrived if one is not None):
                if not echoed[choice]:
                    echoed[choice] = True
                    ids = generation.requests[choice].prompt_token_ids
                    events += prompt_events(server.terms, choice, ids, news.read.scores, generation.logprobs)
                events += texts[choice].of(news)
                left -= news.ended is not None
            if first:
                server.metrics.first_token(time.perf_counter() - self._began)
                first = False
            for event in events:
                if isinstance(event, Finish):
                    server.metrics.tokens(*event.usage)
                    if event.thinking_end:
                        server.metrics.thinking_end(event.thinking_end)
            if events:
                yield events

    def _choice_events(self, choice: int) -> ChoiceEvents:
        generation, terms = self._job.generation, self._server.terms
        request = generation.requests[choice]
        prompt = count_prompt(Prompt(request.prompt_token_ids, request.thinking, request.given_thinking), terms)
        return ChoiceEvents(terms, choice, prompt, request.thinking, request.stop_strings, generation.logprobs)

    async def _stream(self, send: Send) -> None:
        await send(_start(200, SSE, cache=False))
        await send(_piece(b"".join(self._reply.start())))
        async for events in self._events():
            frames = b"".join(frame for event in events for frame in self._reply.next(event))
            if frames:
                await send(_piece(frames))
        await send(_piece(b"".join(self._reply.end()), more=False))

    async def _whole(self, send: Send) -> None:
        events = [event async for some in self._events() for event in some]
        body = json.dumps(self._reply.response(events), separators=(",", ":")).encode()
        self._started = True
        await send(_start(200, "application/json", len(body)))
        await send(_piece(body, more=False))

    async def _fail(self, send: Send, error: ApiError) -> None:
        """Tell of an error, unless the client does not read what it is sent or has the beginning of a body."""
        self._status = error.status
        with suppress(OSError):  # and TimeoutError, which is one
            async with asyncio.timeout(TELL_SECONDS):
                if self._streams:
                    await send(_piece(b"".join(self._reply.failed(error)), more=False))
                elif not self._started:
                    body = json.dumps(self._front.error_body(error)).encode()
                    await send(_start(error.status, "application/json", len(body)))
                    await send(_piece(body, more=False))


def _key(request: Request) -> bytes:
    given = request.headers.get("authorization", "")
    bearer = given[7:] if given[:7].lower() == "bearer " else request.headers.get("x-api-key", "")
    return bearer.strip().encode()


def _start(status: int, kind: str, length: int | None = None, cache: bool = True) -> Message:
    headers = [(b"content-type", kind.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    if not cache:
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    return {"type": "http.response.start", "status": status, "headers": headers}


def _piece(body: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
