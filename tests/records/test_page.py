"""The reference page has a row for every field, and each row has the columns of its table."""

from __future__ import annotations

import re

from s1_jax.records.page import records_page
from s1_jax.records.schema import FIELDS, GROUPS


def test_every_field_has_a_row_with_its_text():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", records_page(), re.MULTILINE))
    assert rows.keys() == FIELDS.keys()
    for name, row in rows.items():
        assert row.endswith(f"| {FIELDS[name].by} | {FIELDS[name].text}")
        assert len(re.findall(r"(?<!\\)\|", row)) == 3, row


def test_every_group_is_a_section():
    assert re.findall(r"^## (.*)$", records_page(), re.MULTILINE) == [group.title for group in GROUPS]
