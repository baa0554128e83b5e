"""No text of a model, a file or an endpoint steers the terminal."""

import ast
import io
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

import s1_jax
from s1_jax import generate
from s1_jax.errors import RunError, UserError
from s1_jax.runtime import terminal
from s1_jax.runtime.cli import run_main
from s1_jax.runtime.progress import BAR_COLUMNS, progress_bar
from s1_jax.runtime.stages import Stages
from s1_jax.runtime.tables import align
from s1_jax.runtime.terminal import in_a_line, say, shown

STEERING = "\x1b[2J\x1b]0;owned\x07 \r \b \x7f \x9b31m \u202e \u2066 \u200f \u2028 \ud800 [bold]"
SHOWN = (
    r"\x1b[2J\x1b]0;owned\x07 \r \x08 \x7f \x9b31m \u202e \u2066 \u200f \u2028 \ud800 [bold]"  # as Python writes them
)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (STEERING, SHOWN),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("caf\u00e9 \u4e2d\u6587 \U0001f468\u200d\U0001f469 \u05e9\u05dc\u05d5\u05dd", None),
        ("", ""),
    ],
)
def test_what_a_terminal_may_have(text, seen):
    assert shown(text) == (text if seen is None else seen)
    assert "\n" not in in_a_line(text) and "\t" not in in_a_line(text)


def test_every_control_character_but_newline_and_tab():
    steering = [chr(i) for i in (*range(32), *range(127, 160)) if chr(i) not in "\n\t"]
    assert not [c for c in steering if shown(c) == c]


@pytest.mark.parametrize(("error", "code"), [(UserError, 2), (RunError, 1), (lambda text: OSError(5, text), 1)])
def test_an_error_that_quotes_data_is_one_line(capsys, error, code, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # restored afterwards

    def main():
        warnings.warn(f"beware\n{STEERING}", stacklevel=1)
        raise error(f"row 7 holds\n{STEERING}")

    with pytest.raises(SystemExit) as stop:
        run_main(main)
    assert stop.value.code == code
    warned, said = capsys.readouterr().err.splitlines()
    assert warned == f"warning: beware {SHOWN}" and said.startswith(f"error: row 7 holds {SHOWN}")


def test_tables_bars_and_stages(monkeypatch):
    table = align([("name", "n"), (f"a\n{STEERING}", "1")])
    assert shown(table) == table and len(table.splitlines()) == 3
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=400, color_system=None)
    for text in (f"{STEERING} [/red]", "[/]"):
        with progress_bar() as bar:
            bar.add_task(text, total=1, note=text)
            console.print(bar.get_renderable())
        with Stages(console=Console(file=out)) as stages:
            stages.at(f"loading {text}")
        assert [column for column in BAR_COLUMNS if type(column).__name__ == "TextColumn"] == []
    said = out.getvalue()
    assert f"{SHOWN} [/red]" in said and f"loading {SHOWN} [/red]" in said
    assert not [c for c in ("\x1b]", "\x07", "\x9b", "\u202e") if c in said]


def test_a_stream_of_a_model(capsys, monkeypatch):
    monkeypatch.setattr(generate, "text_pieces", lambda tokenizer, tokens: [(STEERING, True), ("\x1b[8m", False)])
    with pytest.raises(KeyError):  # there is no model behind it: what is looked at is what was printed by then
        generate.stream(_NoEngine(), None, Stages())
    assert capsys.readouterr().out == SHOWN + r"\x1b[8m" + "\n"


class _NoEngine:
    tokenizer = None

    def check(self, request):
        pass


def test_all_printing_of_the_package_goes_through_one_function():
    package = Path(s1_jax.__file__).parent
    printing = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "print"
    }
    assert printing == {"runtime/terminal.py"}
    assert terminal.say is say


def test_a_terminal_that_does_not_know_a_character(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: say("caf\u00e9 \u4e2d"))
    assert stop.value.code == 0 and raw.getvalue() == rb"caf\xe9 \u4e2d" + b"\n"
