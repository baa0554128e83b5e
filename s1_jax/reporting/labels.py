"""Labels beside the points that they name, each at the nearby position where it covers the least ink."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

DIRECTIONS = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))  # in order of preference
GAPS = (7, 15, 25)  # points between a marker and its label
FAR = 2.0  # cost of each step further away, in units of one covered spot
COVERED_MARK, COVERED_WORD, OUTSIDE = 25.0, 300.0, 1000.0
MARK_RADIUS = 5.0  # points
SPACING = 4.0  # pixels between the spots by which a line is represented


def plain(text: str) -> str:
    """Escape the characters of a text that no font or SVG file can hold."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class Labeller:
    """Places labels on axes whose limits are final, and avoids lines, the markers at their corners, and bars.

    Lines and bars are [n, 2] arrays of data coordinates.
    """

    def __init__(self, axes: Axes, lines: Iterable[np.ndarray], bars: Iterable[np.ndarray] = ()) -> None:
        self._axes = axes
        self._canvas = FigureCanvasAgg(axes.figure)
        self._frame = np.asarray(axes.get_window_extent().extents)
        corners = [axes.transData.transform(line) for line in lines]
        self._marks = np.concatenate(corners)
        self._ink = np.concatenate([_spots(line) for line in (*corners, *map(axes.transData.transform, bars))])
        self._words: list[np.ndarray] = []

    def place(
        self,
        word: str,
        anchors: Sequence[tuple[float, float]],
        colour: str,
        most: float = COVERED_WORD,
        **style: object,
    ) -> bool:
        """Write `word` beside one of `anchors` (data coordinates, in order of preference) and return True.

        If every position covers another label, is partly outside, or costs more than `most`, nothing is written and the
        result is False.
        """
        text = self._axes.text(0, 0, plain(word), color=colour, ha="center", va="center", zorder=6, **style)  # type: ignore[arg-type]
        extent = text.get_window_extent(self._canvas.get_renderer())
        half = np.asarray([extent.width, extent.height]) / 2
        per_point = self._axes.figure.dpi / 72
        cost, best = min(
            (
                (self._cost(centre, half) + FAR * (rank + 3 * step) + 0.1 * order, tuple(centre))
                for rank, anchor in enumerate(self._axes.transData.transform(np.asarray(anchors)))
                for step, gap in enumerate(GAPS)
                for order, direction in enumerate(np.asarray(DIRECTIONS, float))
                for centre in [anchor + direction * (half + gap * per_point / np.linalg.norm(direction))]
            ),
        )
        if cost >= min(most, COVERED_WORD):
            text.remove()
            return False
        centre = np.asarray(best)
        text.set_position(tuple(self._axes.transData.inverted().transform(centre)))
        self._words.append(np.concatenate([centre - half, centre + half]))
        return True

    def _cost(self, centre: np.ndarray, half: np.ndarray) -> float:
        low, high = centre - half - 2, centre + half + 2
        covered = np.all((self._ink >= low) & (self._ink <= high), axis=1).sum()
        radius = MARK_RADIUS * self._axes.figure.dpi / 72
        marks = np.all((self._marks >= low - radius) & (self._marks <= high + radius), axis=1).sum()
        words = sum(bool(np.all(low <= word[2:]) and np.all(high >= word[:2])) for word in self._words)
        outside = bool(np.any(low < self._frame[:2]) or np.any(high > self._frame[2:]))
        return float(covered + COVERED_MARK * marks + COVERED_WORD * words + OUTSIDE * outside)


def _spots(corners: np.ndarray) -> np.ndarray:
    """Represent a polyline by closely spaced spots, [n, 2]."""
    pieces = [corners]
    for start, stop in pairwise(corners):
        count = int(np.linalg.norm(stop - start) / SPACING) + 2
        pieces.append(np.linspace(start, stop, count))
    return np.concatenate(pieces)
