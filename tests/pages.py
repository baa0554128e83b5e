"""The pages that people read: README and the other files at the top, and docs/; their code blocks and their links."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

PROJECT = Path(__file__).resolve().parents[1]
PAGES = sorted([*PROJECT.glob("*.md"), PROJECT / "benchmarks" / "README.md", *(PROJECT / "docs").rglob("*.md")])
MARK = re.compile(r"<!-- (needs|not run): (.+) -->\s*$")
NEEDS = ("tpu", "gpu", "account", "network")  # what a test machine has not
ASSIGNED = re.compile(r"\w+=.*", re.DOTALL)  # VARIABLE=value before a command
BETWEEN = re.compile(r"[();<>|&]+")  # what the shell puts between commands


class Block(NamedTuple):
    """A code block of a page."""

    page: Path
    line: int  # of its first line, from 1
    language: str  # the info string: "" where there is none, "indented" of an indented block
    text: str
    needs: str | None = None  # one of NEEDS, from a comment `<!-- needs: tpu -->` before it
    not_run: str | None = None  # a reason, from a comment `<!-- not run: it takes an hour -->` before it

    @property
    def where(self) -> str:
        page = self.page.relative_to(PROJECT) if self.page.is_relative_to(PROJECT) else self.page
        return f"{page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.needs is None and self.not_run is None


def blocks_of(page: Path) -> list[Block]:
    """All code blocks of a page, in order, with the comment that stands right before each."""
    found, mark = [], None
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            language = token.info.strip() if token.type == "fence" else "indented"
            kind, said = mark or (None, None)
            found.append(
                Block(
                    page,
                    token.map[0] + 1,
                    language,
                    token.content,
                    said if kind == "needs" else None,
                    said if kind == "not run" else None,
                )
            )
        mark = None
        if token.type == "html_block" and (match := MARK.match(token.content)):
            mark = match.groups()
    return found


def commands_of(text: str) -> list[list[str]]:
    """The words of each simple command of a piece of shell: `A=1 python -m x --y && z` has two."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if not BETWEEN.fullmatch(word):
                words.append(word)
            elif words:
                found.append(words)
                words = []
        if words:
            found.append(words)
    for words in found:
        while words and ASSIGNED.fullmatch(words[0]):
            del words[0]
    return [words for words in found if words]


def own_command(words: list[str]) -> tuple[str, list[str]] | None:
    """The module of s1_jax that a command runs, and its arguments; None of any other command."""
    program = Path(words[0]).name
    if program == "s1-jax" and not words[1].startswith("-"):
        return f"s1_jax.{words[1].replace('-', '_')}", words[2:]
    if program.startswith("python") and words[1:2] == ["-m"] and words[2].startswith("s1_jax."):
        return words[2], words[3:]
    return None


def links_of(page: Path) -> list[tuple[int, str]]:
    """Line and target of each link and picture of a page that is no address on the network."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target and not re.match(r"[a-z]+:", str(target)):
                found.append(((token.map or [0])[0] + 1, str(target)))
    return found


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST-Parser make them."""
    tokens = MarkdownIt("commonmark").parse(page.read_text())
    found: set[str] = set()
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))
            found.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return found
