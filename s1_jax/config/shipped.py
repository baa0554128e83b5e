"""The config files that ship with s1_jax: in configs/ of a clone, and inside an installed package."""

from __future__ import annotations

import difflib
from pathlib import Path

NEAR_NAMES = 3  # suggested for an unknown one


def folder() -> Path:
    """The folder of the shipped config files. A wheel has them at s1_jax/configs (setup.py)."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The names of the shipped configs, sorted: `quickstart_sft` and so on."""
    return sorted(path.stem for path in folder().glob("*.py"))


def find(name: str) -> Path | None:
    """The file of the shipped config of this name; None where there is none."""
    return folder() / f"{name}.py" if name in names() else None


def near(argument: str) -> str:
    """What to write instead of a config file or name that does not exist, as a clause of an error message."""
    known, stem = names(), Path(argument).stem
    close = [stem] if stem in known else difflib.get_close_matches(stem, known, n=NEAR_NAMES)
    if not close:
        return f"the shipped configs are {', '.join(known)}"
    return f"did you mean {', '.join([*close[:-2], ' or '.join(close[-2:])])}?"
