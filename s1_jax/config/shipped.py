"""The config files that ship with s1_jax: in configs/ of a clone, and inside an installed package."""

from __future__ import annotations

import difflib
from pathlib import Path

NEAR_NAMES = 3  # suggested for an unknown one


def folder() -> Path:
    """Return the folder of the shipped config files, which is s1_jax/configs in a wheel (setup.py)."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Return the sorted names of the shipped configs, such as `quickstart_sft`."""
    return sorted(path.stem for path in folder().glob("*.py"))


def find(name: str) -> Path | None:
    """Return the file of the shipped config of this name, or None if there is none."""
    return folder() / f"{name}.py" if name in names() else None


def near(argument: str) -> str:
    """Return what to write instead of a config that does not exist, as a clause of an error message."""
    known, stem = names(), Path(argument).stem
    close = [stem] if stem in known else difflib.get_close_matches(stem, known, n=NEAR_NAMES)
    if not close:
        return f"the shipped configs are {', '.join(known)}"
    return f"did you mean {', '.join([*close[:-2], ' or '.join(close[-2:])])}?"
