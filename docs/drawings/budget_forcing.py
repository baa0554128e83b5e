"""Draws what budget forcing does to one row: its own end, a maximum, an ignored end and a minimum."""

from __future__ import annotations

from collections.abc import Callable

from svg import BLUE, GREEN, GREY, INK, ORANGE, PALE, RED, box, drawing, line, text

LEFT, UNIT, HEIGHT, STEP = 150, 22, 30, 76
PROMPT, TRACE = 3, 10  # units
Piece = tuple[float, Callable[[float, float], str]]  # width in units; shape at x and y


def draw() -> str:
    """Return the text of the SVG file."""
    rows = [
        ("natural end", "the model ends by itself", [think(TRACE), end(), answer("answer")]),
        (
            "maximum 6",
            "forced: end marker, Final Answer:",
            [think(6), forced("end", 2), forced("Final Answer:", 5), answer("answer")],
        ),
        (
            'ignore 1, "Wait"',
            "the end is discarded, Wait is appended",
            [think(TRACE), discarded(), forced("Wait", 2.6), think(7), end(), answer("answer")],
        ),
        (
            "minimum 14",
            "the end marker is masked until here",
            [think(14, masked=True), think(2), end(), answer("answer")],
        ),
    ]
    parts = []
    for i, (name, note, pieces) in enumerate(rows):
        y = 40 + i * STEP
        parts += [text(16, y + 20, name, bold=True), text(LEFT, y - 7, note, GREY, 12)]
        x = float(LEFT)
        for width, piece in [(PROMPT, lambda x, y: box(x, y, PROMPT * UNIT - 2, HEIGHT, PALE, "prompt", INK)), *pieces]:
            parts.append(piece(x, y))
            x += width * UNIT
    y = 40 + len(rows) * STEP - 6
    x = LEFT
    for color, name in (
        (BLUE, "sampled thinking"),
        (ORANGE, "forced token"),
        (RED, "discarded end"),
        (GREEN, "answer"),
    ):
        parts += [box(x, y, 14, 14, color), text(x + 20, y + 12, name, INK, 12)]
        x += 140
    return drawing(820, y + 34, parts, "Four rows under four budgets: natural end, maximum, ignored end, minimum")


def think(units: float, masked: bool = False) -> Piece:
    """Draw sampled thinking tokens, one box per token, with a dashed line where the end marker is masked."""

    def piece(x: float, y: float) -> str:
        tokens = [box(x + i * UNIT, y, UNIT - 2, HEIGHT, BLUE) for i in range(int(units))]
        lid = line(x, y + HEIGHT + 5, x + units * UNIT - 3, y + HEIGHT + 5, ORANGE, 2.5, dashed=True)
        return "".join(tokens) + (lid if masked else "")

    return units, piece


def end() -> Piece:
    """Draw an end marker that the model sampled."""
    return 2, lambda x, y: box(x, y, 2 * UNIT - 2, HEIGHT, BLUE, "end")


def discarded() -> Piece:
    """Draw an end marker that was sampled and discarded."""

    def piece(x: float, y: float) -> str:
        shape = box(x, y, 2 * UNIT - 2, HEIGHT, RED, "end")
        return shape + line(x + 3, y + HEIGHT - 4, x + 2 * UNIT - 5, y + 4, "#ffffff", 2.5)

    return 2, piece


def forced(label: str, units: float) -> Piece:
    """Draw tokens that the controller forces."""
    return units, lambda x, y: box(x, y, units * UNIT - 2, HEIGHT, ORANGE, label)


def answer(label: str) -> Piece:
    """Draw the answer, which is sampled after the thinking."""
    return 3, lambda x, y: box(x, y, 3 * UNIT - 2, HEIGHT, GREEN, label)
