"""The server beside the offline engine: throughput, time to the first token, and what the wire costs.

    pip install -e '.[serve]' -c constraints.txt
    python benchmarks/bench_serve.py tiny                                         # the shipped model
    python benchmarks/bench_serve.py 0.5b --json runs/bench_serve_0.5b.json    # Qwen2.5-0.5B's shape, random

One process holds the model. It decodes the requests with the offline engine, then serves them to a client in a process
of its own, which asks for all of them at once: whole answers, then streams. Both engines have 32 rows, and each ran the
requests once before, so compilation does not count. The client's processor time is printed, because it takes its part
of the same cores. --soak adds thousands of requests, after which the memory must be what it was, and clients that hang
up at random moments, after which no row of the batch may be lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _machine import others_seconds
from _results import write_json

BASE = str(files("s1_jax") / "assets" / "tiny_base")
ROWS = 32
CONCURRENT = 64
OTHERS = 31  # streams that run while the time to a first token is measured
TRIES = 5  # of the time to a first token
SOAK, HANG_UPS = 5000, 500
BARS = {  # throughput over the offline engine's: whole answers, streams
    "tiny": (0.7, 0.5),
    "0.5b": (0.95, 0.9),
}


class Case(NamedTuple):
    """What is asked of one model."""

    requests: int
    prompt: tuple[int, int]  # the fewest and the most tokens
    thinking: tuple[int, int]  # likewise
    answer: int  # the most tokens
    max_model_len: int


CASES = {"tiny": Case(256, (16, 100), (40, 200), 8, 512), "0.5b": Case(64, (16, 60), (24, 72), 4, 256)}


class Timing(NamedTuple):
    """One pass over all requests, as the client saw it."""

    seconds: float
    tokens: int
    client_cpu: float  # seconds
    server_cpu: float  # of HTTP, in seconds
    streamed: int  # chunks


def main() -> None:
    """Measure the model that the command line names."""
    options = parse_options()
    if options.client:
        asyncio.run(Client(options).measure())
        return
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    case = CASES[options.model]
    found = Path(tempfile.mkdtemp()) / "client.json"
    busy, began = others_seconds(), time.perf_counter()
    figures = serve_and_measure(options, case, found)
    figures |= json.loads(found.read_text())
    figures["others_seconds"] = round(others_seconds() - busy - figures["client_cpu"], 1)
    figures["bench_seconds"] = round(time.perf_counter() - began)
    show(options.model, figures)
    write_json(options.json, figures)


def parse_options() -> argparse.Namespace:
    """Parse the command line into options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=CASES, help="the model that is served")
    parser.add_argument("--soak", action="store_true", help="add thousands of requests and clients that hang up")
    parser.add_argument("--json", type=Path, help="write all figures into this file")
    parser.add_argument("--client", help=argparse.SUPPRESS)  # the URL: this process is the client
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def bodies(case: Case) -> list[dict[str, Any]]:
    """Make the bodies of all requests, for completions with thinking of given lengths."""
    rng = np.random.default_rng(0)

    def between(bounds: tuple[int, int]) -> int:
        return int(rng.integers(bounds[0], bounds[1] + 1))

    made = []
    for i in range(case.requests):
        thinking = between(case.thinking)
        made.append(
            {
                "model": "bench",
                "prompt": rng.integers(10, 300, between(case.prompt)).tolist(),
                "thinking": {"min_tokens": thinking, "max_tokens": thinking},
                "max_answer_tokens": case.answer,
                "max_tokens": thinking + 16 + case.answer,
                "temperature": 0,
                "seed": i,
            }
        )
    return made


def serve_and_measure(options: argparse.Namespace, case: Case, found: Path) -> dict[str, Any]:
    """Decode the requests offline, then serve them to the client until it has measured."""
    from s1_jax.config.serve import ServeConfig
    from s1_jax.decoding.loaded_model import LoadedModel, load_model
    from s1_jax.serving import openai_text
    from s1_jax.serving.generation import Terms
    from s1_jax.serving.listen import bind, serve, url_of

    model: LoadedModel = load_model(BASE) if options.model == "tiny" else random_model()
    config = ServeConfig(batch_size=ROWS, served_model_name="bench")
    terms = Terms(config, model.tokenizer, model.format, case.max_model_len, model.config.vocab_size, "bench", 0)
    requests = [openai_text.read(body, terms).requests[0] for body in bodies(case)]
    offline = model.engine(case.max_model_len, ROWS)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        records = list(offline.run(requests))
        seconds.append(time.perf_counter() - began)
    tokens = sum(record["num_thinking_tokens"] + record["num_answer_tokens"] for record in records)
    engine = model.engine(case.max_model_len, ROWS, scores=True)
    began = time.perf_counter()
    queue = engine.queue(4 * case.max_model_len)
    start, compiled = time.perf_counter() - began, engine.num_compiled
    bound = bind("127.0.0.1", 0)
    command = [sys.executable, __file__, options.model, "--client", url_of(bound), "--found", str(found)]
    with subprocess.Popen([*command, *(["--soak"] if options.soak else [])]) as client:
        serve(terms, engine, queue, (), bound)
    if client.returncode:
        raise SystemExit(f"the client has failed with exit code {client.returncode}")
    return {
        "offline_seconds": min(seconds[1:]),
        "offline_tokens": tokens,
        "warm_up_seconds": round(start, 1),
        "compiled": compiled,
        "compiled_more": engine.num_compiled - compiled,
    }


def random_model() -> Any:
    """Make a model of Qwen2.5-0.5B's shape with random weights."""
    import jax
    import jax.numpy as jnp

    from s1_jax.checkpoints import hf
    from s1_jax.decoding.loaded_model import LoadedModel
    from s1_jax.model import stored_weights
    from s1_jax.model.sizes import PUBLISHED
    from s1_jax.model.transformer import init_params, unstack

    config = PUBLISHED["Qwen/Qwen2.5-0.5B"]
    params = stored_weights.transpose(unstack(init_params(config, jax.random.key(0))))  # as loaded weights on a CPU
    return LoadedModel(config, params, hf.load_tokenizer(BASE), jnp.float32, jnp.float32)


class Client:
    """The client's process: it asks, measures, and ends the server."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options, self._case = options, CASES[options.model]
        self._host, self._port = options.client.removeprefix("http://").split(":")
        self._bodies = bodies(self._case)

    async def measure(self) -> None:
        """Measure everything, write the figures, and send the server SIGTERM whatever happens."""
        try:
            await self._ready()
            figures: dict[str, Any] = {}
            for name, streams in (("whole", False), ("streamed", True)):
                await self._all(streams)
                figures[name] = max([await self._all(streams) for _ in range(2)], key=lambda t: t.tokens / t.seconds)
            figures = {name: timing._asdict() for name, timing in figures.items()}
            figures |= await self._first_tokens()
            if self._options.soak:
                figures |= await self._soak()
            figures["client_cpu"] = time.process_time()
            self._options.found.write_text(json.dumps(figures))
        finally:
            os.kill(os.getppid(), signal.SIGTERM)

    async def _ready(self) -> None:
        for _ in range(200):
            try:
                await self._get("/health")
                return
            except OSError:
                await asyncio.sleep(0.05)
        raise SystemExit("the server does not answer")

    async def _all(self, streams: bool, bodies: Sequence[dict[str, Any]] | None = None) -> Timing:
        """Ask for all answers, CONCURRENT at a time, each with a connection of its own."""
        left = [json.dumps(body | {"stream": streams}).encode() for body in bodies or self._bodies][::-1]
        counts = [0, 0]
        cpu, server = time.process_time(), await self._server_cpu()

        async def ask() -> None:
            connection = await self._connect()
            while left:
                answer = await self._post(connection, left.pop())
                counts[0] += sum(map(int, re.findall(rb'"completion_tokens":(\d+)', answer)))
                counts[1] += answer.count(b"data: ")
            connection[1].close()

        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(CONCURRENT)))
        seconds = time.perf_counter() - began
        cpu = time.process_time() - cpu
        return Timing(seconds, counts[0], cpu, await self._server_cpu() - server, counts[1])

    async def _first_tokens(self) -> dict[str, float]:
        """Measure the time to the first token alone and beside OTHERS streams, and the time of a step beside them."""
        case = self._case
        most = case.max_model_len - 100
        long = {"thinking": {"min_tokens": most, "max_tokens": most}, "max_tokens": most + 20, "stream": True}
        alone = min([await self._first_token(i) for i in range(TRIES)])
        others = [asyncio.create_task(self._stream_of(body | long)) for body in self._bodies[:OTHERS]]
        await asyncio.sleep(alone * OTHERS + 1)
        beside = [await self._first_token(100 + i) for i in range(TRIES)]
        times = [await other for other in others]
        steps = [(last - first) / (tokens - 1) for first, last, tokens in times]
        step = statistics.median(steps)
        return {"first_alone": alone, "first_beside": statistics.median(beside), "step": step}

    async def _first_token(self, seed: int) -> float:
        rng = np.random.default_rng(1000 + seed)
        body = self._bodies[0] | {"prompt": rng.integers(10, 300, 40).tolist(), "stream": True}
        body |= {"thinking": {"min_tokens": 8, "max_tokens": 8}}
        began = time.perf_counter()
        first, _, _ = await self._stream_of(body)
        return first - began

    async def _stream_of(self, body: dict[str, Any]) -> tuple[float, float, int]:
        """Read one stream, and give the times of its first and last tokens and their number."""
        reader, writer = await self._connect()
        writer.write(_request("POST", "/v1/completions", json.dumps(body).encode()))
        first = last = 0.0
        most = int(body["thinking"]["max_tokens"])
        while b"[DONE]" not in (piece := await reader.read(2**16)):
            if b'"reasoning_content":"' in piece or b'"text":"' in piece:
                last = time.perf_counter()
                first = first or last
            if not piece:
                raise SystemExit("the server closed a stream")
        writer.close()
        return first, last, most

    async def _soak(self) -> dict[str, Any]:
        """Ask for thousands of short answers, hang up in the middle of some, and look at memory and rows after it."""
        short = [
            body | {"thinking": {"max_tokens": 2, "min_tokens": 1}, "max_answer_tokens": 1, "max_tokens": 20}
            for body in self._bodies
        ]
        several = (short * (1 + SOAK // len(short)))[:SOAK]
        memory = [_resident()]
        await self._all(True, several[: SOAK // 5])
        memory.append(_resident())
        await self._all(False, several)
        memory.append(_resident())
        rng = np.random.default_rng(1)

        async def hang_up(i: int) -> None:
            _, writer = await self._connect()
            body = self._bodies[i % len(self._bodies)] | {"stream": bool(i % 2)}
            writer.write(_request("POST", "/v1/completions", json.dumps(body).encode()))
            await asyncio.sleep(float(rng.exponential(0.05)))
            writer.close()

        for first in range(0, HANG_UPS, CONCURRENT):
            await asyncio.gather(*(hang_up(i) for i in range(first, min(first + CONCURRENT, HANG_UPS))))
        for _ in range(200):
            health = json.loads((await self._get("/health")).split(b"\r\n\r\n")[1])
            if not health["running"] and not health["waiting"]:
                break
            await asyncio.sleep(0.05)
        after = await self._all(False)
        return {"memory_mib": memory, "left_after_hang_ups": health, "seconds_after_hang_ups": after.seconds}

    async def _server_cpu(self) -> float:
        text = await self._get("/metrics")
        found = re.search(rb"s1_jax_http_cpu_seconds ([\d.e+-]+)", text)
        assert found
        return float(found[1])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, int(self._port), limit=2**22)

    async def _get(self, path: str) -> bytes:
        reader, writer = await self._connect()
        writer.write(_request("GET", path, b"", "close"))
        answer = await reader.read()
        writer.close()
        return answer

    async def _post(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: bytes) -> bytes:
        reader, writer = connection
        writer.write(_request("POST", "/v1/completions", body))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{head!r} {await reader.read(1000)!r}")
        if length := re.search(rb"content-length: (\d+)", head):
            return await reader.readexactly(int(length[1]))
        pieces = []
        while (size := int(await reader.readline(), 16)) > 0:
            pieces.append(await reader.readexactly(size + 2))
        await reader.readline()
        return b"".join(pieces)


def _request(method: str, path: str, body: bytes, connection: str = "keep-alive") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: {connection}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _resident() -> int:
    """Return the MiB of memory that the server holds."""
    status = Path(f"/proc/{os.getppid()}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) >> 10


def show(model: str, figures: dict[str, Any]) -> None:
    """Print the figures, each with its bar."""
    offline = figures["offline_tokens"] / figures["offline_seconds"]
    print(f"offline engine: {offline:,.0f} tokens/s in {figures['offline_seconds']:.1f} s, {ROWS} rows")
    print(
        f"start: {figures['compiled']} programs in {figures['warm_up_seconds']} s; {figures['compiled_more']} after it"
    )
    for name, bar in zip(("whole", "streamed"), BARS[model], strict=True):
        timing = Timing(**figures[name])
        ratio = figures["offline_seconds"] / timing.seconds
        cost = timing.server_cpu / (CASES[model].requests if name == "whole" else timing.streamed)
        unit = "request" if name == "whole" else "chunk"
        print(
            f"{name}: {ratio:.2f} of the offline engine's throughput (bar {bar}); HTTP {cost * 1e6:,.0f} us a {unit}, "
            f"the client {timing.client_cpu:.1f} s of processor time"
        )
    waited = (figures["first_beside"] - figures["first_alone"]) / figures["step"]
    print(
        f"first token: {figures['first_alone'] * 1e3:,.0f} ms alone, {figures['first_beside'] * 1e3:,.0f} ms beside "
        f"{OTHERS} streams, which is {waited:.1f} of their steps more (bar 4; a step {figures['step'] * 1e3:.1f} ms)"
    )
    if "memory_mib" in figures:
        memory = ", ".join(f"{value:,}" for value in figures["memory_mib"])
        print(f"memory before, after {SOAK // 5:,} streams and after {SOAK:,} more requests: {memory} MiB")
        print(f"after {HANG_UPS} clients that hung up: {figures['left_after_hang_ups']}")
    print(f"other processes took {figures['others_seconds']} s of processor time in {figures['bench_seconds']} s")


if __name__ == "__main__":
    main()
