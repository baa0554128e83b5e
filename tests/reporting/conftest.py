"""What the tests of both plots share."""

import pytest


@pytest.fixture
def figures(monkeypatch):
    """The figures that were made, to look into."""
    from matplotlib.figure import Figure  # slow to import

    made = []

    def make(**options):
        made.append(Figure(**options))
        return made[-1]

    for module in ("plot", "methods_plot"):
        monkeypatch.setattr(f"s1_jax.reporting.{module}.Figure", make)
    return made
