"""README's limits: it fits on a few screens, and every claim of its comparison links to its evidence."""

import re

from tests.pages import PROJECT

MOST_LINES, LONGEST_LINE = 150, 140
README = (PROJECT / "README.md").read_text()
DEFINITION = re.compile(r"^\[([\w-]+)\]: \S+$", re.MULTILINE)
LINK = re.compile(r"\]\[([\w-]+)\]|\]\([^)]+\)")


def test_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= MOST_LINES
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


def test_every_cell_of_the_comparison_links_to_its_evidence():
    rows = [
        line.strip("|").split("|") for line in README.splitlines() if line.startswith("| ") and line.count("|") == 7
    ]
    header, *body = rows
    assert len(body) >= 6
    cells = [*header[2:], *(cell for row in body for cell in row[1:])]
    assert [cell for cell in cells if not LINK.search(cell)] == []


def test_reference_links_are_defined_and_used():
    defined = DEFINITION.findall(README)
    used = {match.group(1) for match in LINK.finditer(README) if match.group(1)} | {"paper"}
    assert len(defined) == len(set(defined))
    assert set(defined) == used
