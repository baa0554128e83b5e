"""The chat that the server shows at `/`, as one HTML document that loads nothing else.

The document is assembled from assets/chat/ and from the scripts of assets/report/ that draw formulas. Its content
security policy forbids every other script and every connection but those to the server itself.
"""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

ASSETS = files("s1_jax") / "assets"
SCRIPTS = (
    "chat/base.js",
    "report/symbols.js",
    "report/latex.js",
    "report/formulas.js",
    "chat/wire.js",
    "chat/settings.js",
    "chat/cut.js",
    "chat/thinking.js",
    "chat/answers.js",
    "chat/turns.js",
    "chat/chat.js",
)


@cache
def page() -> bytes:
    """Assemble the page, as ASCII."""
    parts = {"style": _asset("chat/chat.css"), "script": "".join(_script(name) for name in SCRIPTS)}
    parts |= {f"{name} hash": _policy_hash(source) for name, source in parts.items()}
    return re.sub(r"\{(\w+(?: hash)?)\}", lambda place: parts[place[1]], _asset("chat/chat.html")).encode("ascii")


def _policy_hash(source: str) -> str:
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"


def _script(name: str) -> str:
    r"""Read a script as ASCII; other characters, which occur only in its strings, become \xNN and \uNNNN."""
    return (ASSETS / name).read_text(encoding="utf-8").encode("ascii", "backslashreplace").decode()


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="ascii")
