"""What is said on standard error before the first result, and beside a bar."""

from __future__ import annotations

from io import StringIO

import jax
from rich.console import Console

from s1_jax.runtime.stages import COMPILING, LiveNote, Stages


def compile_something():
    jax.jit(lambda x: 2 * x + 0.5)(1.0)


def a_console(terminal):
    environment = {"TERM": "xterm"}  # however the suite was started: rich moves no cursor in a dumb terminal
    return Console(file=StringIO(), force_terminal=terminal, width=80, color_system=None, _environ=environment)


def said_of_a_command(console):
    with Stages(console) as told:
        told.at("loading it", quiet=True)
        compile_something()
        loading = str(told.__rich__())
        told.at("reading it")
        compile_something()
        compile_something()
        told.at("reading it")
        told.done()
        shown = console.file.getvalue()
        compile_something()
        told.at("streaming it")
    assert loading == "loading it" and console.file.getvalue() == shown, "nothing comes in between what streams"
    return shown


def test_beside_a_terminal_each_stage_is_a_line_once_no_mistake_can_come():
    assert said_of_a_command(a_console(terminal=False)) == f"reading it\n{COMPILING}\nreading it\n"


def test_on_a_terminal_one_line_goes_away():
    said = said_of_a_command(a_console(terminal=True))
    assert "reading it" in said and said.endswith("\x1b[2K"), "erased, and the cursor where it was"


def test_a_note_gives_way_to_a_compilation():
    seen = []
    with LiveNote("8 runs") as note:
        note._watch._begins = lambda: seen.append(str(note))
        assert str(note) == "8 runs"
        compile_something()
        assert str(note) == "8 runs" and note.compiling > 0
    assert seen and all(text == f"{COMPILING} 0:00:00" for text in seen)
