"""Write the drawings of the docs: python docs/drawings/make.py."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
FOLDERS = {"budget_forcing": "concepts", "shared_trace": "concepts", "metrics": "concepts", "decoding": "design"}


def made(name: str) -> str:
    """Return the SVG text of a drawing."""
    return import_module(name).draw()


def path_of(name: str) -> Path:
    """Return the path of a drawing's file."""
    return DOCS / FOLDERS[name] / f"{name}.svg"


if __name__ == "__main__":
    for name in FOLDERS:
        path_of(name).write_text(made(name))
        print(path_of(name))
