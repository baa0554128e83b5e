"""Client of template_worker.py, a process with limited time and memory that renders chat templates."""

from __future__ import annotations

import atexit
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s1_jax.runtime.texts import is_unicode
from s1_jax.runtime.worker import Worker

WORKER = Path(__file__).with_name("template_worker.py")
SECONDS = 5.0  # processor time for one prompt; a long conversation takes 0.01
SECONDS_BY_THE_CLOCK = 300.0  # wall time, for a worker that does not even end; long for busy machines


class TemplateError(Exception):
    """Raised when a template cannot be rendered; the message says why."""


def render(template: str, names: Mapping[str, Any]) -> str:
    """Render a template with `names`: JSON values are passed as they are, and other values as text.

    Raises TemplateError if the template fails or exceeds its limits of time, memory or length (it is not tried again
    after a timeout), and RunError if no process can be started.
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
        raise TemplateError("it writes half of a surrogate pair, which is not valid Unicode")
    return known["text"]


_endless: dict[str, str] = {}  # templates that reached the time limit
_worker = Worker(lambda: [str(WORKER), str(SECONDS)], "the process that renders chat templates")
atexit.register(_worker.close)
