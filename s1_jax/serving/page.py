"""The chat that the server shows at `/`, as one HTML document that loads nothing else.

The document is assembled from assets/chat/ and from the scripts of assets/report/ that draw formulas. Its content
security policy forbids every other script and every connection but those to the server itself.
"""

from __future__ import annotations

from functools import cache

from s1_jax.runtime.html_page import assemble

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
    return assemble("chat/chat.html", "chat/chat.css", SCRIPTS).encode("ascii")
