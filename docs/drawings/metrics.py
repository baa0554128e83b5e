"""Draws Control, Scaling and Performance on the points of the quickstart's sweep."""

from __future__ import annotations

from math import log2

from svg import BLUE, GREEN, GREY, INK, ORANGE, PALE, box, dot, drawing, line, text

# mean thinking tokens, accuracy in percent, maximum: the rows `max N, 4 x Wait` of the quickstart's table
POINTS = ((16.0, 1.4, 16), (32.0, 19.6, 32), (64.0, 37.8, 64), (90.6, 61.0, 96), (108.1, 87.8, 128), (116.0, 93.8, 160))
LEFT, RIGHT, TOP, BOTTOM = 64, 560, 46, 330


def draw() -> str:
    """Return the text of the SVG file."""
    parts = [text(16, 26, "Three metrics of one curve", bold=True, size=15)]
    for percent in (0, 20, 40, 60, 80, 100):
        parts += [
            line(LEFT, up(percent), RIGHT, up(percent), PALE, 1),
            text(LEFT - 8, up(percent) + 4, str(percent), GREY, 12, "end"),
        ]
    for tick in (16, 32, 64, 128):
        parts += [
            line(across(tick), BOTTOM, across(tick), BOTTOM + 5, GREY),
            text(across(tick), BOTTOM + 20, str(tick), GREY, 12, "middle"),
        ]
    parts += [
        text(
            (LEFT + RIGHT) / 2,
            BOTTOM + 42,
            "mean thinking tokens (each step to the right doubles them)",
            INK,
            13,
            "middle",
        ),
        text(16, TOP - 2, "accuracy, %", INK, 12),
    ]
    for i, (tokens, accuracy, _) in enumerate(POINTS):  # the slope of every pair
        for more, higher, _ in POINTS[i + 1 :]:
            parts.append(line(across(tokens), up(accuracy), across(more), up(higher), ORANGE, 0.8))
    best = max(accuracy for _, accuracy, _ in POINTS)
    parts.append(line(LEFT, up(best), RIGHT, up(best), GREEN, 2, dashed=True))
    parts += [dot(across(tokens), up(accuracy), BLUE, 5.5) for tokens, accuracy, _ in POINTS]
    slopes = [
        (higher - accuracy) / (log2(more) - log2(tokens))
        for i, (tokens, accuracy, _) in enumerate(POINTS)
        for more, higher, _ in POINTS[i + 1 :]
    ]
    inside = sum(tokens <= maximum for tokens, _, maximum in POINTS) / len(POINTS)
    x = RIGHT + 24
    for y, color, name, value, words in (
        (70, BLUE, "Control", f"{inside:.0%}", "runs whose thinking stays in its bounds"),
        (150, ORANGE, "Scaling", f"{sum(slopes) / len(slopes):.1f}", "points per doubling, mean of all pairs"),
        (230, GREEN, "Performance", f"{best}%", "accuracy of the best run"),
    ):
        parts += [
            box(x, y - 13, 6, 48, color),
            text(x + 16, y, name, INK, 14, bold=True),
            text(x + 16, y + 18, value, color, 15, bold=True),
            text(x + 16, y + 35, words, GREY, 11.5),
        ]
    return drawing(820, BOTTOM + 60, parts, "Control, Scaling and Performance of the quickstart's six maxima")


def across(tokens: float) -> float:
    """Pixel of a number of thinking tokens."""
    return LEFT + 24 + log2(tokens / 16) / log2(160 / 16) * (RIGHT - LEFT - 40)


def up(accuracy: float) -> float:
    """Pixel of an accuracy in percent."""
    return BOTTOM - accuracy / 100 * (BOTTOM - TOP - 10)
