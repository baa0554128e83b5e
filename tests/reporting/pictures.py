"""Checks of picture files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path


def png_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, in pixels."""
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:])
    return width, height


def assert_same_bytes_twice(save: Callable[[Sequence[Path]], None], folder: Path) -> None:
    """Save the same picture twice, each time as PNG and SVG."""
    made = []
    for name in ("a", "b"):
        paths = [folder / f"{name}.png", folder / f"{name}.svg"]
        save(paths)
        made.append([path.read_bytes() for path in paths])
    assert made[0] == made[1] and b"<svg" in made[0][1]
