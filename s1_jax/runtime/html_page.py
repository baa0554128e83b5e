"""One HTML document from a page's parts, which loads nothing: its policy forbids every script and style but its own."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files

ASSETS = files("s1_jax") / "assets"


def assemble(page: str, style: str, scripts: Sequence[str], more: Mapping[str, str] | None = None) -> str:
    """Assemble the document as ASCII from files below assets/: `page` has a place {name} for each part.

    The parts are {style}, {script}, {style hash} and {script hash}, of which the last two belong into the page's
    content security policy, and those of `more`, which are inserted as they are.
    """
    parts = {"style": _asset(style), "script": "".join(map(_script, scripts))}
    parts |= {f"{name} hash": _policy_hash(source) for name, source in parts.items()}
    parts |= more or {}
    return re.sub(r"\{(\w+(?: hash)?)\}", lambda place: parts[place[1]], _asset(page))


def _policy_hash(source: str) -> str:
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"


def _script(name: str) -> str:
    r"""Read a script as ASCII; other characters, which occur only in its strings, become \xNN and \uNNNN."""
    return (ASSETS / name).read_text(encoding="utf-8").encode("ascii", "backslashreplace").decode()


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="ascii")
