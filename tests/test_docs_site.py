"""The site: what is generated covers the code, and every page is whole."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

from s1_jax.runtime.cli import option_types
from s1_jax.tasks import TASKS
from tests.pages import PAGES, PROJECT

DOCS = PROJECT / "docs"
WORDS = 40  # of the shortest page
HIDDEN = ("--profile", "--sweep.extra")  # an alias, and what only config files have
sys.path.insert(0, str(DOCS))
sys.path.insert(0, str(DOCS / "drawings"))
generated = importlib.import_module("generated")
make = importlib.import_module("make")
MODULES = [
    path.stem for path in sorted((PROJECT / "s1_jax").glob("[a-z]*.py")) if "\nif __name__ ==" in path.read_text()
]


@pytest.mark.parametrize("name", make.FOLDERS)
def test_a_drawing_is_what_its_script_makes(name):
    assert make.path_of(name).read_text() == make.made(name), "run python docs/drawings/make.py"


def test_a_message_of_troubleshooting_is_one_that_the_code_says():
    said = "\n".join(map(texts_of, (PROJECT / "s1_jax").rglob("*.py")))
    messages = re.findall(r"^\| `([^`]+)`", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(messages) > 20
    for part in [part.strip() for message in messages for part in message.split("...") if part.strip()]:
        assert part in said, f"no message of the code has {part!r}"


def texts_of(path: Path) -> str:
    """Every string of a module, the fixed parts of f-strings among them."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_the_reference_has_every_command():
    assert {*generated.COMMANDS, "lm_eval"} == set(MODULES)


@pytest.fixture(scope="module")
def cli() -> str:
    return generated.cli()


@pytest.mark.parametrize("command", generated.COMMANDS)
def test_the_reference_has_every_option_of_a_command(command, cli):
    linked = re.findall(r"^`(--[\w.-]+\.)\*`: see", cli, re.MULTILINE)
    for option in option_types(generated.COMMANDS[command]):
        rest = next((option.removeprefix(prefix) for prefix in linked if option.startswith(prefix)), None)
        ends = (
            () if rest is None else (f".{rest}`", f"--{'.'.join(rest.split('.')[-2:])}`")
        )  # a section in a shared one
        is_there = f"`{option}`" in cli or any(end in cli for end in ends)
        assert is_there or option in HIDDEN, f"{option} of {command} is not in the reference"


def test_the_reference_has_every_shipped_config():
    text = generated.configs()
    for path in (PROJECT / "configs").glob("*.py"):
        assert f"`configs/{path.name}`" in text


@pytest.mark.parametrize("name", TASKS)
def test_the_docs_have_every_task(name, cli):
    assert re.search(rf"^## .*`{name}`", generated.tasks(), re.MULTILINE)
    assert re.search(rf"^\| `.*\b{name}`", (DOCS / "guides" / "evaluate.md").read_text(), re.MULTILINE)
    (text,) = re.findall(r"^\| `--task\.name` .*", cli, re.MULTILINE)
    assert re.search(rf"\b{name}\b", text)


def test_a_task_is_shown_with_its_example_and_what_was_not_checked():
    text = generated.tasks()
    assert text.count("\nproblem    ") == text.count("\nverdict    ") == text.count("\n## ") + 1
    assert "`MathArena/hmmt_nov_2025`" in text


def test_the_reference_names_defaults_and_texts(cli):
    assert "| `--sweep.num-ignore` |" in cli
    assert re.search(r"\| `--optim\.peak-lr` \|[^|]*\| `1e-05` \|", cli)
    assert "load_model(" in generated.api()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if DOCS in page.parents], ids=lambda p: str(p.relative_to(DOCS))
)
def test_a_page_is_whole(page):
    text = page.read_text()
    assert "TODO" not in text and "FIXME" not in text
    assert text.startswith(("# ", "```{include}"))
    assert len(text.split()) >= WORDS or "```{include}" in text
