"""Words put beside what they name: each takes the place, of those around its points, where it covers the least ink."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

DIRECTIONS = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))  # in order of preference
GAPS = (7, 15, 25)  # points between a mark and its word
FAR = 2.0  # cost of each step further away, in units of one covered spot
COVERED_WORD, OUTSIDE = 300.0, 1000.0
SPACING = 4.0  # pixels between the spots that stand for a line
MARK = 9.0 * np.asarray([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)])  # pixels: the spots that stand for a mark


class Labeller:
    """Places words on axes whose limits are final, avoiding lines given as [n, 2] arrays of data coordinates."""

    def __init__(self, axes: Axes, lines: Iterable[np.ndarray]) -> None:
        self._axes = axes
        self._canvas = FigureCanvasAgg(axes.figure)
        self._frame = np.asarray(axes.get_window_extent().extents)
        self._ink = np.concatenate([_spots(axes.transData.transform(line)) for line in lines])
        self._words: list[np.ndarray] = []

    def place(self, word: str, anchors: Sequence[tuple[float, float]], colour: str, **style: object) -> None:
        """Writes `word` beside one of `anchors` (data coordinates, the most wanted first)."""
        text = self._axes.text(0, 0, word, color=colour, ha="center", va="center", zorder=6, **style)  # type: ignore[arg-type]
        extent = text.get_window_extent(self._canvas.get_renderer())
        half = np.asarray([extent.width, extent.height]) / 2
        per_point = self._axes.figure.dpi / 72
        best = min(
            (
                (self._cost(centre, half) + FAR * (rank + 3 * step) + 0.1 * order, tuple(centre))
                for rank, anchor in enumerate(self._axes.transData.transform(np.asarray(anchors)))
                for step, gap in enumerate(GAPS)
                for order, direction in enumerate(np.asarray(DIRECTIONS, float))
                for centre in [anchor + direction * (half + gap * per_point / np.linalg.norm(direction))]
            ),
        )[1]
        centre = np.asarray(best)
        text.set_position(tuple(self._axes.transData.inverted().transform(centre)))
        self._words.append(np.concatenate([centre - half, centre + half]))

    def _cost(self, centre: np.ndarray, half: np.ndarray) -> float:
        low, high = centre - half - 2, centre + half + 2
        covered = np.all((self._ink >= low) & (self._ink <= high), axis=1).sum()
        words = sum(bool(np.all(low <= word[2:]) and np.all(high >= word[:2])) for word in self._words)
        outside = bool(np.any(low < self._frame[:2]) or np.any(high > self._frame[2:]))
        return float(covered + COVERED_WORD * words + OUTSIDE * outside)


def _spots(corners: np.ndarray) -> np.ndarray:
    """A polyline as closely spaced spots, [n, 2]."""
    pieces = [corner + MARK for corner in corners]
    for start, stop in pairwise(corners):
        count = int(np.linalg.norm(stop - start) / SPACING) + 2
        pieces.append(np.linspace(start, stop, count))
    return np.concatenate(pieces)
