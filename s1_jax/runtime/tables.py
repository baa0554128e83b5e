"""Tables of text whose columns line up."""

from __future__ import annotations

from collections.abc import Sequence

from s1_jax.runtime.terminal import in_a_line


def align(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a table with a ruled header; the first column is aligned left, the others right."""
    rows = [[in_a_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([row[0].ljust(len(first)), *rest]).rstrip())
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])
