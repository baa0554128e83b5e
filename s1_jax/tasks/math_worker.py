"""The process that runs math-verify, so that no expression can hang, crash or fill the process that asks.

Reads pairs [gold, answer] as JSON, one a line, from standard input and answers each with a line: "equal", "different",
"unread" (one of the two is no mathematics to it), "too long", or "killed". Every pair has a fork of its own, which the
kernel ends at the limit of processor time even inside C code and which cannot take more than its share of memory; it
starts with math-verify imported and leaves nothing behind. How busy the machine is makes no difference: time that a
fork waits is not counted. Ends with its standard input.

Run as a file, not as a module of the package: whatever it imported besides, every fork would carry along.
"""

import json
import math
import os
import resource
import signal
import sys

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, MatrixBase

MEMORY = 2**30  # bytes of address space a fork may have
FIRST = (  # what these import and make is there for every fork; else each spends 0.1 to 0.3 s on it
    ("\\frac{1}{2}x", "x/2"),
    ("\\sqrt{3}", "\\frac{4}{9}"),
    ("[1, \\pi]", "\\left[ 1, 2\\pi \\right]"),
)


def main(seconds: float) -> None:
    """Answers pairs, each within `seconds` of processor time, until there are no more."""
    replies = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # what libraries print is no reply
        os.dup2(nowhere, descriptor)
    for pair in FIRST:
        compare(*pair)
    os.write(replies, b"ready\n")
    for line in sys.stdin.buffer:
        if (child := os.fork()) == 0:
            answer(line, seconds, replies)
        _, status = os.waitpid(child, 0)
        if status != 0:
            too_long = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU)
            os.write(replies, b"too long\n" if too_long else b"killed\n")


def answer(line: bytes, seconds: float, replies: int) -> None:
    """In a fork: writes the reply to one pair and exits; or is ended from outside."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    whole = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (whole + 1, whole + 2))  # should a library set the timer or the signal
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    failed = 1
    try:
        reply = compare(*json.loads(line)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        failed = os.write(replies, reply + b"\n") == 0
    finally:
        os._exit(failed)  # not into the loop of the process that forked


def compare(gold: str, answer: str) -> str:
    """ "equal", "different" or "unread". math-verify is not symmetric: the gold answer comes first."""
    expected, given = read(gold), read(answer)
    if verify(expected, given, timeout_seconds=None):  # its own time limits are alarms, which C code does not hear
        return "equal"
    both_read = all(isinstance(side[0], Basic | MatrixBase) for side in (expected, given) if side)
    return "different" if expected and given and both_read else "unread"


def read(text: str) -> list:
    """What math-verify makes of a final answer: all of it is one formula, if it says nothing else."""
    text = text.replace("\\$", "")
    if "$" not in text and "\\(" not in text and "\\[" not in text:
        text = f"${text}$"
    return parse(text, [LatexExtractionConfig()], extraction_mode="first_match", parsing_timeout=None)


if __name__ == "__main__":
    main(float(sys.argv[1]))
