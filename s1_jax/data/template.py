"""Chat templates, rendered by template_worker.py: one process of limited time and memory, kept while this one lives."""

from __future__ import annotations

import atexit
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s1_jax.runtime.texts import is_unicode
from s1_jax.runtime.worker import Worker

WORKER = Path(__file__).with_name("template_worker.py")
SECONDS = 5.0  # of processor time for one prompt; a long conversation takes a hundredth of one
SECONDS_BY_THE_CLOCK = 300.0  # for a worker that does not even end: room for a busy machine


class TemplateError(Exception):
    """A template that cannot be rendered, and why."""


def render(template: str, names: Mapping[str, Any]) -> str:
    """The text of a template that sees `names`: what JSON can hold as it is, all else as its text.

    Raises TemplateError where the template fails, or does not end within its limits of time, memory and length (it is
    not tried again then), and RunError where no process can be started.
    """
    if template in _endless:
        raise TemplateError(_endless[template])
    request = json.dumps({"template": template, "names": dict(names)}, default=str)
    reply = _worker.ask_line(request, SECONDS_BY_THE_CLOCK)
    if reply is None:
        _endless[template] = f"it does not end within {SECONDS:g} seconds of processor time"
        raise TemplateError(_endless[template])
    known = json.loads(reply)
    if "error" in known:
        raise TemplateError(known["error"])
    if not is_unicode(known["text"]):
        raise TemplateError("it writes half of a surrogate pair, which is no text")
    return known["text"]


_endless: dict[str, str] = {}  # templates that were ended
_worker = Worker(lambda: [str(WORKER), str(SECONDS)], "the process that renders chat templates")
atexit.register(_worker.close)
