"""The process that renders chat templates, so that none can hang or fill the process that asks.

Reads requests as JSON, one a line, from standard input: {"template": its source, "names": what it sees}. Answers each
with a line: {"text": what it renders} or {"error": why it cannot}. The kernel ends the process where one request takes
more processor time than it may, even inside C code, and lets it have no more than its share of memory.

Run as a file, not as a module of the package, and without transformers, which takes seconds to import: what a template
sees is what transformers lets it see (utils/chat_template_utils.py there), and the tests hold the two together.
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
ADDED = 2**20  # characters that a template may write, and as many times GROWTH as it is given
GROWTH = 4


def main(seconds: float) -> None:
    """Answers requests, each within `seconds` of processor time, until there are no more."""
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process
    replies.write(b"ready\n")
    replies.flush()
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reply = answer(line)
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


def answer(line: bytes) -> dict[str, str]:
    """The reply to one request."""
    try:
        request = json.loads(line)
        text = compiled(request["template"]).render(**request["names"])
        if len(text) > ADDED + GROWTH * len(line):
            return {"error": f"it writes {len(text):,} characters, more than a prompt can have"}
        return {"text": text}
    except MemoryError:
        return {"error": f"it needs more than {MEMORY >> 20} MiB of memory"}
    except RecursionError:
        return {"error": "it calls itself without end"}
    except Exception as error:  # a template is a program: jinja's errors and Python's
        return {"error": (str(error).strip() or type(error).__name__).splitlines()[0]}


@lru_cache(maxsize=4)
def compiled(template: str) -> Template:
    """The template in the sandbox, with what transformers puts there."""
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
    """`{% generation %}`, which marks what an assistant wrote, and here changes nothing."""

    tags = {"generation"}  # noqa: RUF012, as jinja has it

    def parse(self, parser: Any) -> Node:
        """The block as a call of `_as_it_is`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return CallBlock(self.call_method("_as_it_is"), [], [], body).set_lineno(line)

    def _as_it_is(self, caller: Any) -> str:
        return caller()


class Dict:
    """`dict` without the class's attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """A new one."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """As Python's."""
        return dict.fromkeys(*args, **kwargs)


class Names(Namespace):
    """`namespace`, in which nothing is named as Python's internals are."""

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
    """Raises SecurityError on a name that begins with an underscore."""
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}; rename it")


def raise_exception(message: str) -> NoReturn:
    """For templates that refuse what they are given."""
    raise TemplateError(message)


def tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON without HTML's escapes, which jinja's own filter writes."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


if __name__ == "__main__":
    main(float(sys.argv[1]))
