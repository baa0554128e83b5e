"""Draws the way of a request through the decoder, and a batch whose slots are always in use."""

from __future__ import annotations

from svg import BLUE, GREEN, GREY, INK, ORANGE, PALE, box, dot, drawing, line, text

STATIONS = (  # name, what happens there, file
    ("Request", "prompt, budget,", "seed", "core/requests.py"),
    ("Plan", "requests that begin", "alike share a run", "core/sweep.py"),
    ("Slots", "the rows of the batch;", "the jitted loop", "host/slots.py"),
    ("Trace", "the run's tokens,", "back on the host", "core/traces.py"),
    ("Waves", "answers at the", "branch points", "host/waves.py"),
    ("Record", "one JSON line", "per request", "records.py"),
)
STEP, BOX = 127, 96  # pixels from one station to the next, and of its box
TOP, ROW = 190, 34
LEFT, SCALE = 76, 6.4  # pixels a step of the loop
COLORS = {"prompt": PALE, "thinking": BLUE, "forced": ORANGE, "answer": GREEN}
SLOTS = (  # by slot: runs of (kind, steps)
    (("prompt", 5), ("thinking", 30), ("answer", 6), ("prompt", 5), ("thinking", 40), ("answer", 8)),
    (("prompt", 5), ("thinking", 14), ("forced", 5), ("answer", 6), ("prompt", 5), ("thinking", 48), ("answer", 10)),
    (("prompt", 5), ("thinking", 22), ("forced", 2), ("thinking", 26), ("answer", 6), ("prompt", 5), ("thinking", 29)),
    (("prompt", 5), ("thinking", 62), ("answer", 7), ("prompt", 5), ("thinking", 18)),
)


def draw() -> str:
    """Return the text of the SVG file."""
    parts = [text(16, 28, "The way of a request", bold=True, size=15)]
    for number, (name, first, second, file) in enumerate(STATIONS):
        x = 16 + number * STEP
        parts += [
            box(x, 46, BOX, 30, BLUE if name == "Slots" else INK, name),
            text(x, 96, first, size=11.5),
            text(x, 111, second, size=11.5),
            text(x, 128, file, GREY, 11),
        ]
        if number:
            parts += [line(x - STEP + BOX + 5, 61, x - 10, 61), dot(x - 8, 61, GREY, 3.5)]
    parts.append(text(16, TOP - 16, "Four slots of the batch, step by step", bold=True, size=15))
    for slot, runs in enumerate(SLOTS):
        y, step = TOP + slot * ROW, 0
        parts.append(text(16, y + 17, f"slot {slot}"))
        for kind, steps in runs:
            parts.append(box(LEFT + step * SCALE, y, steps * SCALE - 1.5, 24, COLORS[kind]))
            step += steps
    y = TOP + len(SLOTS) * ROW + 12
    for number, (kind, color) in enumerate(COLORS.items()):
        x = LEFT + number * 110
        parts += [box(x, y, 14, 14, color), text(x + 21, y + 12, kind, size=12)]
    parts.append(text(LEFT + 4 * 110, y + 12, "a run that ends frees its slot for the next", GREY, 12))
    return drawing(784, y + 32, parts, "A request is planned, decoded in a slot, read back as a trace, and recorded")
