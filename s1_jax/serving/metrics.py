"""What the server tells Prometheus about itself, at `/metrics`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class Metrics:
    """Counts of requests and tokens, and gauges that are read when they are asked for."""

    def __init__(self, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self._registry = CollectorRegistry()
        here: Any = {"registry": self._registry}
        self._requests = Counter("s1_jax_requests", "Requests that have been answered.", ["path", "status"], **here)
        self._tokens = Counter(
            "s1_jax_tokens", "Tokens: of prompts, of these read from the prefix cache, completion.", ["kind"], **here
        )
        self._ends = Counter("s1_jax_thinking_ends", "Ends of thinking by their reason.", ["reason"], **here)
        self._first = Histogram(
            "s1_jax_time_to_first_token_seconds",
            "Seconds to the first token of a stream, or to the whole of another reply.",
            buckets=SECONDS,
            **here,
        )
        self._whole = Histogram("s1_jax_request_seconds", "Seconds of whole requests.", buckets=SECONDS, **here)
        for name, (text, read) in gauges.items():
            Gauge(f"s1_jax_{name}", text, **here).set_function(read)

    def answered(self, path: str, status: int, seconds: float = 0.0) -> None:
        """Count a request that has been answered; one that was refused has no seconds."""
        self._requests.labels(path, status).inc()
        if seconds:
            self._whole.observe(seconds)

    def first_token(self, seconds: float) -> None:
        """Count the first token of a stream."""
        self._first.observe(seconds)

    def tokens(self, prompt: int, cached: int, completion: int, reasoning: int) -> None:
        """Count the tokens of a choice that has ended; the reasoning tokens are some of the completion's."""
        counts = {"prompt": prompt, "cached": cached, "completion": completion, "reasoning": reasoning}
        for kind, count in counts.items():
            self._tokens.labels(kind).inc(count)

    def thinking_end(self, reason: str) -> None:
        """Count an end of thinking."""
        self._ends.labels(reason).inc()

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)
