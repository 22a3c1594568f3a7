"""Small tables for notebooks, in which everything is escaped; sizes in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

LONGEST = 300  # letters of a cell
LEFT = "text-align:left;vertical-align:top"


def card(title: str, facts: Mapping[str, object]) -> str:
    """Show names and values below a title.

    Args:
        title: Of what.
        facts: Name -> value.

    Returns:
        HTML.

    Example:
        >>> card("A <b>", {"x": 1})[:37]
        '<div><strong>A &lt;b&gt;</strong><tab'
    """
    return f"<div><strong>{escape(title)}</strong>{table((), facts.items())}</div>"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Show rows of cells.

    Args:
        heads: Of the columns; may be empty.
        rows: Of as many cells.

    Returns:
        HTML.
    """
    head = "".join(f'<th style="{LEFT}">{escape(name)}</th>' for name in heads)
    lines = [head, *("".join(map(_cell, row)) for row in rows)]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines if line) + "</table>"


def _cell(value: object) -> str:
    text = str(value)
    shown = text if len(text) <= LONGEST else text[:LONGEST] + " …"
    return f'<td style="{LEFT}">{escape(shown)}</td>'


def spell_bytes(count: float) -> str:
    """Say how large something is.

    Args:
        count: Bytes.

    Returns:
        The number in the largest unit of which there is one.

    Example:
        >>> spell_bytes(700), spell_bytes(3 << 19)
        ('700 bytes', '1.5 MiB')
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
