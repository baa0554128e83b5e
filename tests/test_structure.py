"""The house holds: imports run down only, nothing imports in a circle, and no file is longer than one can read."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = "s1_jax"
MOST_LINES = 450
MOST_LINES_OF_EVALUATE = 160

# From the top of the house to its ground. A room imports from the bands below its own, and from nothing beside or above
# it but what SIDEWAYS lists.
BANDS = {
    "commands": "__main__ quickstart train evaluate generate serve grade plan curate convert lm_eval",
    "api": "__init__ api",
    "work": "evaluation serving training decoding search tasks curation planning harness reporting",
    "substance": "records model data checkpoints",
    "ground": "config errors sharding torus chips runtime",
}
SIDEWAYS = {
    "__main__": "__init__",
    "quickstart": "train evaluate",
    "__init__": "api",
    "evaluation": "decoding search tasks reporting",
    "search": "decoding tasks",
    "curation": "decoding tasks reporting",
    "planning": "training decoding",
    "harness": "__init__ decoding search tasks",
    "serving": "decoding",
    "reporting": "tasks",
    "checkpoints": "model",
    "config": "errors",
    "sharding": "chips config errors torus",
    "torus": "chips",
    "runtime": "config errors",
}
# Layers within decoding: each imports from the layers before it, and the first two know less still.
LAYERS = ("core", "device", "host", "")
UNKNOWN_TO = {"core": {"model", "checkpoints", "runtime"}, "device": {"checkpoints", "runtime"}}


@cache
def imports() -> Mapping[str, frozenset[str]]:
    """Every module of the package with the modules of the package that it imports, wherever in it that stands."""
    files = {_name_of(path): path for path in (PROJECT / PACKAGE).rglob("*.py")}
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in files.items()}
    return {
        name: frozenset(_imported(tree, name, files[name].name == "__init__.py", trees)) for name, tree in trees.items()
    }


def _name_of(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module, importer: str, is_package: bool, modules: Mapping[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            base = importer.split(".")[: -node.level + is_package or None] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source.split(".")[0] == PACKAGE:
                names = (f"{source}.{alias.name}" for alias in node.names)
                yield from (name if name in modules else source for name in names)


def room_of(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[2] in LAYERS else ""


def across_rooms() -> Iterator[tuple[str, str]]:
    for module, imported in imports().items():
        yield from ((module, other) for other in imported if room_of(module) != room_of(other))


def test_every_room_has_its_band():
    known = {room for rooms in BANDS.values() for room in rooms.split()}
    assert {room_of(module) for module in imports()} <= known


def test_the_imports_of_every_kind_are_seen(tmp_path):
    source = """
from typing import TYPE_CHECKING
import s1_jax.errors
from s1_jax import api
from . import names
from ..data.chat import encode
if TYPE_CHECKING:
    from s1_jax.decoding.engine import Engine
def late():
    from s1_jax.model import transformer
"""
    modules = dict.fromkeys(["s1_jax.api", "s1_jax.records.names", "s1_jax.model.transformer"])
    wanted = "errors api records.names data.chat decoding.engine model.transformer"
    for importer, is_package in (("s1_jax.records.lines", False), ("s1_jax.records", True)):
        found = set(_imported(ast.parse(source), importer, is_package, modules))
        assert found == {f"s1_jax.{name}" for name in wanted.split()}, importer


def test_imports_run_down():
    band = {room: number for number, rooms in enumerate(BANDS.values()) for room in rooms.split()}
    up = [
        f"{module} imports {other}"
        for module, other in across_rooms()
        if band[room_of(other)] <= band[room_of(module)]
        and room_of(other) not in SIDEWAYS.get(room_of(module), "").split()
    ]
    assert not up


def test_no_sideways_import_is_allowed_for_nothing():
    found = {(room_of(module), room_of(other)) for module, other in across_rooms()}
    allowed = {(room, other) for room, others in SIDEWAYS.items() for other in others.split()}
    assert not allowed - found


def test_nothing_imports_in_a_circle():
    left = {module: set(imported) - {module} for module, imported in imports().items()}
    while left:  # take away whatever imports nothing that is left, or is imported by nothing that is left
        wanted = {other for imported in left.values() for other in imported}
        ends = [module for module, imported in left.items() if module not in wanted or not imported & left.keys()]
        if not ends:
            break
        for module in ends:
            del left[module]
    assert not {module: sorted(imported & left.keys()) for module, imported in left.items()}


@pytest.mark.parametrize("layer", LAYERS)
def test_decoding_is_built_in_layers(layer):
    room = f"{PACKAGE}.decoding"
    modules = [module for module in imports() if room_of(module) == "decoding" and layer_of(module) == layer]
    assert modules
    below = LAYERS[: LAYERS.index(layer) + 1]
    for module in modules:
        for other in imports()[module]:
            if room_of(other) == "decoding":
                assert layer_of(other) in below and other != room, f"{module} imports {other}"
            assert room_of(other) not in UNKNOWN_TO.get(layer, ()), f"{module} imports {other}"


@pytest.mark.parametrize(
    ("module", "unknown"),
    [("reporting", {"decoding", "model", "checkpoints", "search"}), ("grade", {"decoding", "model", "evaluate"})],
)
def test_reports_and_grades_are_made_of_records_alone(module, unknown):
    """Not even by way of another module, but for a judge that is decoded here."""
    decodes_here = f"{PACKAGE}.curation.decode_here"
    seen, todo = set(), [name for name in imports() if room_of(name) == module]
    assert todo
    while todo:
        name = todo.pop()
        if name in seen or name == decodes_here:
            continue
        seen.add(name)
        assert room_of(name) not in unknown, name
        todo += imports().get(name, ())


def test_no_file_is_too_long():
    folders = (PACKAGE, "scripts", "benchmarks", "tests", "configs")
    paths = [path for folder in folders for path in (PROJECT / folder).rglob("*.py")]
    lines = {path.relative_to(PROJECT).as_posix(): path.read_bytes().count(b"\n") for path in paths}
    assert len(lines) > 100
    long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert not long
    assert lines["s1_jax/evaluate.py"] <= MOST_LINES_OF_EVALUATE
