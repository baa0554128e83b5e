"""JSON and server-sent events as bytes."""

from __future__ import annotations

import json
import secrets
from typing import Any

DONE = b"data: [DONE]\n\n"  # the last frame of a stream in OpenAI's protocol

# ASCII alone: some clients end lines of a stream at U+2028 or U+0085 too
_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def new_id(prefix: str) -> str:
    """Return a new id for a reply."""
    return prefix + secrets.token_hex(12)


def encode(value: Any) -> bytes:
    """Return a value as JSON."""
    return _ENCODER.encode(value).encode("ascii")


def frame(value: Any, event: str | None = None) -> bytes:
    """Return one server-sent event, with a name if the protocol has them."""
    head = "data: " if event is None else f"event: {event}\ndata: "
    return (head + _ENCODER.encode(value) + "\n\n").encode("ascii")
