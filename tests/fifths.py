"""A fifth of the slow tests at a time: `pytest -m slow --slow-fifth K`, K from 0 to 4 (.ci/run).

The tests are dealt out by their names, in order, so that the tests of one file, which take about as long as each other,
go to different fifths.
"""

from __future__ import annotations

import pytest

FIFTHS = 5


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "run only this fifth of the tests marked slow; together the five are all of them"
    parser.addoption("--slow-fifth", type=int, choices=range(FIFTHS), metavar="0..4", help=text)


@pytest.hookimpl(trylast=True)  # behind -m and -k: a fifth of what they leave
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (fifth := config.getoption("slow_fifth")) is None:
        return
    slow = sorted(item.nodeid for item in items if item.get_closest_marker("slow"))
    kept = set(slow[fifth::FIFTHS])
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
    items[:] = [item for item in items if item.nodeid in kept]
