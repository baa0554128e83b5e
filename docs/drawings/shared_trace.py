"""Draws how a sweep reads many settings from one trace: where each leaves it, and what that costs."""

from __future__ import annotations

from svg import BLUE, GREEN, GREY, INK, ORANGE, PALE, box, dot, drawing, line, text

LEFT, SCALE, TOP, HEIGHT = 96, 4.3, 62, 26  # pixels a token
CUTS = (16, 32, 64)
END, SECOND, LAST = 44, 78, 116  # thinking tokens at the natural end, after one "Wait", after two
ANSWER = 8


def draw() -> str:
    """Return the text of the SVG file."""
    parts = [
        text(16, 26, "One trace for six settings of one problem", bold=True, size=15),
        box(16, TOP, 74, HEIGHT, PALE, "prompt", INK),
    ]
    for start, stop in ((0, END), (END, SECOND), (SECOND, LAST)):
        parts.append(box(at(start), TOP, at(stop) - at(start) - 2, HEIGHT, BLUE))
    for wait in (END, SECOND):
        parts.append(box(at(wait) - 22, TOP, 44, HEIGHT, ORANGE, "Wait"))
    settings = sorted(
        [(cut, f"max {cut}", 0) for cut in CUTS]
        + [(END - 5, "natural end", 1), (SECOND - 5, "1 x Wait", 1), (LAST, "2 x Wait", 0)]
    )
    for number, (where, name, _) in enumerate(settings):
        y = TOP + 54 + (number % 2) * 52
        x = at(where)
        parts += [
            line(x, TOP + HEIGHT, x, y, GREEN, 2),
            dot(x, TOP + HEIGHT + 1, GREEN, 4),
            box(x, y, 74, 22, GREEN, "answer"),
            text(x, y + 37, name, INK, 12),
        ]
    y = TOP + 190
    alone = sum(CUTS) + END + SECOND + LAST + 6 * ANSWER
    together = LAST + 6 * ANSWER
    parts += [line(16, y - 20, 764, y - 20, PALE, 2)]
    for row, (name, tokens, color) in enumerate((("each by itself", alone, GREY), ("from one trace", together, BLUE))):
        width = tokens * 1.25
        parts += [
            text(16, y + 16 + row * 34, name, INK, 13),
            box(120, y + row * 34, width, 24, color),
            text(128 + width, y + 16 + row * 34, f"{tokens} tokens decoded", INK, 13),
        ]
    return drawing(780, y + 82, parts, "Six settings of one problem leave one thinking trace at six points")


def at(token: float) -> float:
    """Pixel of a thinking token."""
    return LEFT + token * SCALE
