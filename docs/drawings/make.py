"""Writes the drawings of docs/concepts/: python docs/drawings/make.py."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

CONCEPTS = Path(__file__).resolve().parents[1] / "concepts"
NAMES = ("budget_forcing", "shared_trace", "metrics")


def made(name: str) -> str:
    """The SVG text of a drawing."""
    return import_module(name).draw()


if __name__ == "__main__":
    for name in NAMES:
        (CONCEPTS / f"{name}.svg").write_text(made(name))
        print(CONCEPTS / f"{name}.svg")
