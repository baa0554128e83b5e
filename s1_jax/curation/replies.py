"""Replies of a model to many prompts as they arrive, from an endpoint or decoded on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Sequence
from pathlib import Path

from s1_jax.config import EndpointConfig
from s1_jax.errors import RunError
from s1_jax.runtime.cli import StopFlag
from s1_jax.runtime.endpoint import EMPTY, Endpoint, NoAnswer, Reply
from s1_jax.runtime.terminal import say

KEPT = "finished answers are saved. Run the same command to resume."
CHARACTERS_OF_A_TOKEN = 4  # estimate for endpoints that do not count tokens
IN_A_ROW = 20  # consecutive prompts without an answer after which the rest is not tried
ROOM = 2**26  # free bytes on the disk required to send another prompt; enough for the replies still expected


def replies_of(
    who: EndpointConfig, source: Path | None, name: str, prompts: Sequence[str], path: Path, stop: StopFlag
) -> Generator[tuple[int, Reply | NoAnswer]]:
    """Yield the index of each prompt with its reply, or with the reason why there is none.

    `source` is the folder of a model decoded on this machine, None for an endpoint; `path` is the file to which the
    caller saves replies. A reply may have been cut off (`Reply.whole`); one that ended naturally has a text. If further
    prompts would fail too, or the disk of `path` is nearly full, no more are sent, and RunError is raised after the
    replies still expected have arrived. Also raises what a StopFlag raises.
    """
    if not prompts:
        return
    if source is not None:
        from s1_jax.curation.decode_here import decode_here  # imports the model stack, which endpoints do not need

        for index, said in decode_here(who, source, prompts, lambda status: stop.check()):
            if isinstance(said, Reply) and (said.text or said.finish != "stop"):
                yield index, said
            else:
                yield index, NoAnswer(name, said if isinstance(said, str) else EMPTY, for_all=False, of_prompt=True)
        return
    endpoint, in_a_row = Endpoint(who, name), 0
    why: RunError | None = None
    replies = endpoint.ask_many(
        prompts,
        temperature=who.temperature,
        max_tokens=who.max_tokens,
        concurrent=who.concurrent,
        asked_to_stop=lambda: stop.asked,
    )
    for index, reply in replies:
        in_a_row = in_a_row + 1 if isinstance(reply, NoAnswer) else 0
        if why is None and (why := _reason_to_end(name, reply, in_a_row, path)):
            endpoint.enough.set()
            say(f"{name}: sending no more prompts; waiting for the replies still expected")
        if isinstance(reply, Reply):
            read = reply.tokens_read or len(prompts[index]) // CHARACTERS_OF_A_TOKEN
            written = reply.tokens_written or len(reply.thinking + reply.text) // CHARACTERS_OF_A_TOKEN
            reply = reply._replace(tokens_read=read, tokens_written=written)
        yield index, reply
    stop.check()
    if why is not None:
        raise why


def dollars(who: EndpointConfig, read: int, written: int) -> float:
    """Return the cost of this many tokens in dollars."""
    dollars_read, dollars_written = who.dollars_per_million_tokens
    return (read * dollars_read + written * dollars_written) / 1e6


def _reason_to_end(name: str, reply: Reply | NoAnswer, in_a_row: int, path: Path) -> RunError | None:
    """Return the reason to send no more prompts, or None."""
    if isinstance(reply, NoAnswer) and reply.for_all:
        return reply
    if isinstance(reply, NoAnswer) and in_a_row >= IN_A_ROW:
        return RunError(f"{name} left {IN_A_ROW} prompts in a row unanswered, the last by {reply.reason}; {KEPT}")
    if shutil.disk_usage(path.parent).free < ROOM:
        return RunError(f"the disk of {path} is nearly full; {KEPT}")
    return None
