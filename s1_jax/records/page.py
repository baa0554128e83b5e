"""The tables of docs/reference/records.md, made from the schema when the docs are built."""

from __future__ import annotations

import json

from s1_jax.records.schema import GROUPS, REQUIRED, Field, SameAs


def records_page() -> str:
    """Return a section of Markdown for each group of fields, with a table of its fields."""
    lines: list[str] = []
    for group in GROUPS:
        lines += [f"## {group.title}", "", group.where, ""]
        lines += ["| field | value | if absent | from | meaning |", "|---|---|---|---|---|"]
        lines += [_row(field) for field in group.fields] + [""]
    return "\n".join(lines)


def _row(field: Field) -> str:
    cells = (f"`{field.name}`", field.kind.shown(), _absent(field), field.by, field.text)
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _absent(field: Field) -> str:
    if field.absent is REQUIRED:
        return "never"
    if isinstance(field.absent, SameAs):
        return f"as `{field.absent.name}`"
    return f"`{json.dumps(field.absent)}`"
