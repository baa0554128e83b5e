"""Worker process that renders chat templates, so that none can hang or exhaust the process that asks.

It reads requests as JSON lines from standard input, {"template": source, "names": variables}, and replies with one line
each, {"text": result} or {"error": reason}. The operating system ends the process if a request exceeds its processor
time, even inside C code, and limits its memory.

Run it as a file, not as a module of the package, and without transformers, which takes seconds to import. A template
sees the same names as in transformers (utils/chat_template_utils.py there); the tests compare the two.
"""

import json
import os
import resource
import signal
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MEMORY = 2**30  # bytes of address space
ADDED = 2**20  # characters that a template may write, in addition to GROWTH times those of its request
GROWTH = 4


def main(seconds: float) -> None:
    """Reply to requests, each within `seconds` of processor time, until standard input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process
    replies.write(b"ready\n")
    replies.flush()
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reply = answer(line)
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


def answer(line: bytes) -> dict[str, str]:
    """Build the reply to one request."""
    try:
        request = json.loads(line)
        text = compiled(request["template"]).render(**request["names"])
        if len(text) > ADDED + GROWTH * len(line):
            return {"error": f"it writes {len(text):,} characters, more than a prompt can have"}
        return {"text": text}
    except MemoryError:
        return {"error": f"it needs more than {MEMORY >> 20} MiB of memory"}
    except RecursionError:
        return {"error": "it calls itself endlessly"}
    except Exception as error:  # a template is a program: jinja's errors and Python's
        return {"error": (str(error).strip() or type(error).__name__).splitlines()[0]}


@lru_cache(maxsize=4)
def compiled(template: str) -> Template:
    """Compile the template in a sandbox with the names that transformers provides."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda format: datetime.now().strftime(format),
        "dict": Dict(),
        "namespace": Names,
    }
    return environment.from_string(template)


class Generation(Extension):
    """Extension for `{% generation %}`, which marks the assistant's text and changes nothing here."""

    tags = {"generation"}  # noqa: RUF012, as jinja has it

    def parse(self, parser: Any) -> Node:
        """Parse the block into a call of `_as_it_is`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return CallBlock(self.call_method("_as_it_is"), [], [], body).set_lineno(line)

    def _as_it_is(self, caller: Any) -> str:
        return caller()


class Dict:
    """Replacement of `dict` without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Return a new dict of these arguments."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Return a new dict as `dict.fromkeys` does."""
        return dict.fromkeys(*args, **kwargs)


class Names(Namespace):
    """Replacement of `namespace` that refuses names of Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        check_name(name)
        Namespace.__setitem__(self, name, value)


def check_name(name: Any) -> None:
    """Raise SecurityError on a name that begins with an underscore."""
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot contain {name!r}; rename it")


def raise_exception(message: str) -> NoReturn:
    """Raise TemplateError; templates call it to refuse their input."""
    raise TemplateError(message)


def tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Write JSON without the HTML escapes of jinja's own filter."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


if __name__ == "__main__":
    main(float(sys.argv[1]))
