"""Public docstrings can be read without the name above them: each begins with a whole sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
FOLDERS = ("s1_jax", "configs", "scripts", "benchmarks")
FEWEST_WORDS = 5
NO_BEGINNINGS = {"Of", "As", "None", "Which"}


def first_sentence(docstring: str) -> str:
    """Up to a full stop, a question mark or an exclamation mark, as far as white space follows it."""
    return re.split(r"(?<=[.!?])\s", " ".join(docstring.split()), maxsplit=1)[0]


def is_fragment(docstring: str) -> bool:
    """Whether it makes no sense by itself."""
    words = first_sentence(docstring).split()
    first = re.sub(r"\W", "", words[0]) if words else ""
    return len(words) < FEWEST_WORDS or first in NO_BEGINNINGS or (len(first) == 1 and first != "A")


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, docstring) of a module and of all in it that is public and has one."""
    yield from _of(ast.parse(path.read_text("utf-8")))


def _of(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[int, str]]:
    if docstring := ast.get_docstring(node):
        yield getattr(node, "lineno", 1), docstring
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
                yield from _of(child)


@pytest.mark.parametrize(
    ("docstring", "fragment"),
    [
        ("Return the number of chips in the slice.", False),
        ("A record of each problem and setting.", False),
        ("Of the slice, the number of its chips.", True),
        ("None where there is no such thing.", True),
        ("H, the size of a head.", True),
        ("`V` is the size of the vocabulary.", True),
        ("The command.\n\nIt does many things, one after the other.", True),
        ("Read config.json and whatever\nlies beside it.", False),
    ],
)
def test_a_fragment_is_known(docstring, fragment):
    assert is_fragment(docstring) is fragment


def test_public_docstrings_begin_with_a_whole_sentence():
    paths = [path for folder in FOLDERS for path in sorted((PROJECT / folder).rglob("*.py"))]
    found = {path: list(docstrings(path)) for path in paths}
    assert sum(map(len, found.values())) > 100
    fragments = [
        f"{path.relative_to(PROJECT)}:{line}: {first_sentence(docstring)}"
        for path, of_file in found.items()
        for line, docstring in of_file
        if is_fragment(docstring)
    ]
    assert not fragments
