"""Plain SVG text: the few shapes that the drawings of docs/concepts/ are made of, in their colors."""

from __future__ import annotations

from html import escape

WHITE, INK, PALE, GREY = "#ffffff", "#1f2430", "#eef0f4", "#8a90a0"
BLUE, ORANGE, GREEN, RED = "#3b76c4", "#e08a1e", "#2f9e62", "#c8423b"
FONT = "Helvetica, Arial, sans-serif"


def drawing(width: int, height: int, parts: list[str], title: str) -> str:
    """Make a whole file, with a white background for dark pages and a title for those who cannot see it."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="{FONT}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{WHITE}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def box(x: float, y: float, width: float, height: float, fill: str, label: str = "", ink: str = WHITE) -> str:
    """Draw a rounded rectangle with a label in its middle."""
    shape = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}"/>'
    return shape + (text(x + width / 2, y + height / 2 + 4.5, label, ink, anchor="middle") if label else "")


def text(
    x: float, y: float, content: str, color: str = INK, size: float = 13, anchor: str = "start", bold: bool = False
) -> str:
    """Write one line of text with its baseline at y."""
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"'
    return f'<text {place} fill="{color}"{weight}>{escape(content)}</text>'


def line(
    x1: float, y1: float, x2: float, y2: float, color: str = GREY, width: float = 1.5, dashed: bool = False
) -> str:
    """Draw a straight line between two points."""
    dashes = ' stroke-dasharray="4 4"' if dashed else ""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{color}" stroke-width="{width:g}"{dashes} '
        'stroke-linecap="round"/>'
    )


def dot(x: float, y: float, color: str, radius: float = 5) -> str:
    """Draw a filled circle around a point."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{color}"/>'
