"""Values, words, lines, code and templates that replace valid ones."""

from __future__ import annotations

from typing import Any

DIGITS = "9" * 5000
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 1.5, -0.5, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", " ", "0", "-1", "nan", "a", "\ud800", "\x00", "\x1b[2J\x07", "a\nb\r", "\u202etxt", "a" * 10_000),
    "$\\frac{1}{$",
    *("../../x", "/dev/zero", "/dev/null", "[/red]", "\ufeff", [], {}, [None], [[]], {"": None}, [1, "a"]),
    {"a": {"b": []}},
]
WORDS = [
    *("", " ", "-1", "0", "1", "2", "1.5", "1e400", "nan", "inf", "-inf", DIGITS, "true", "false", "None", "a"),
    "\udcff",
    *("/dev/zero", "/dev/null", "/dev/stdin", "missing", ".", "examples.jsonl", "a" * 5000, "[/red]", "\x1b[2J"),
    "a\nb",
    *("gs://", "s3://a/b", "http://x", "https://u:p@h/v1", "1 2", "--", "-", "1,2", "{}", "\u00e9", "99999", "="),
    "1_000",
]
NUMBERS = [
    "-1",
    "0",
    "1",
    "3",
    "0.5",
    "1.5",
    "1e-300",
    "1e300",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "99999",
    "1" + "0" * 30,
    DIGITS,
]
LINES = [
    *(b"", b"{", b"null", b"[]", b"7", b'"a"', b"\xff\xfe{}", b"\x00", b"\xef\xbb\xbf{}", b"[" * 100_000, b"{}" * 3),
    *(b'{"a": ' * 100_000, b'{"a": 1, "a": 2}', b'{"a": ' + DIGITS.encode() + b"}", b'{"a": NaN}', b'{"a": 1e999}'),
]
CODE = [  # lines of config files
    *("import sys; sys.exit(0)", "raise SystemExit", "raise KeyboardInterrupt", "raise BaseException('no')", "1 / 0"),
    *("raise Exception('two\\nlines \\x1b[2J')", "get_config = 7", "get_config = lambda: None", "del get_config"),
    "(" * 300,
    *("def get_config(): return 7", "def get_config(a): return a", "def get_config():\n    return get_config()"),
    "import x.y",
    *("\x00", "\ud800", "    return", "raise SystemExit('a\\nb')"),
    "class E(Exception):\n    def __str__(self): raise E\nraise E",
]
TEMPLATES = [
    *("", "{{", "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}"),
    "{{ 'a' * 3000000000 }}",
    *("{{ messages[9].content }}", "{{ raise_exception('no\\nno') }}", "{{ ''.__class__.__mro__ }}", "{{ 1 / 0 }}"),
    "\x1b[2J",
    *("{% include 'x' %}", "{{ '\\ud800' }}", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "{{ 10**10**10 }}"),
]
