"""Small tables for terminals and, with everything escaped, notebooks; sizes, times, values and evidence in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

LONGEST = 300  # letters of a cell
LEFT = "text-align:left;vertical-align:top"


def card(title: str, facts: Mapping[str, object] | Iterable[tuple[str, object]]) -> str:
    """Show names and values below a title.

    Args:
        title: Of what.
        facts: Names and values, of which a name may come twice.

    Returns:
        HTML.

    Examples:
        >>> card("A <b>", {"x": 1})[:37]
        '<div><strong>A &lt;b&gt;</strong><tab'
    """
    rows = facts.items() if isinstance(facts, Mapping) else facts
    return f"<div><strong>{escape(title)}</strong>{table((), rows)}</div>"


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

    Examples:
        >>> spell_bytes(700), spell_bytes(3 << 19)
        ('700 bytes', '1.5 MiB')
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def spell_value(value: Any) -> str:
    """Say a value on one line.

    Args:
        value: Nested mappings and sequences of numbers and texts.

    Returns:
        Names and values with commas, entries of lists with semicolons.

    Examples:
        >>> spell_value({"a": 1.0, "b": [2, 3e-7]})
        'a 1.0, b 2; 3.0e-07'
    """
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {spell_value(entry)}" for key, entry in value.items() if entry != ""
        )
    if isinstance(value, list):
        return "; ".join(map(spell_value, value))
    return f"{value:.1e}" if isinstance(value, float) and 0 < abs(value) < 1e-3 else str(value)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Write rows in columns.

    Args:
        rows: Cells, of every row as many; at least one row.

    Returns:
        A line for each.

    Examples:
        >>> aligned([("a", "1"), ("bc", "2")])
        ['  a   1', '  bc  2']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def evidence(certificate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Put a certificate into words.

    Args:
        certificate: As `pipeline.autograd.checks.certificate.Certificate.record` gives it, or a file.

    Yields:
        What, and how it came out.
    """
    widths = ", ".join(map(str, certificate["widths_checked"]))
    yield "route", f"{certificate['route']} {certificate['mode']}"
    yield "reference", certificate["reference"]
    yield "compared", f"{spell_points(certificate['points_checked'])}, in batches of {widths}"
    yield "largest error", spell_value(certificate["reference_error"])
    if estimated := certificate.get("estimated_error"):
        yield "estimated error", spell_value(estimated)
    if certificate["rows_checked"]:
        error = spell_value(certificate["rows_error"])
        yield "while running", f"rows compared: {certificate['rows_checked']}, error {error}"
    for key, words in (
        ("finite_difference_residual", "finite differences"),
        ("forward_reverse_residual", "forward - reverse"),
        ("symmetry_residual", "asymmetry"),
        ("rounding_error", "rounding"),
    ):
        if certificate[key] is not None:
            yield words, f"{certificate[key]:.1e}" if certificate[key] else "0"
    yield from (("not checked", reason) for reason in certificate["unchecked"])
    yield from (("DISAGREEMENT", reason) for reason in certificate["disagreements"])


def spell_seconds(seconds: float) -> str:
    """Say how long something takes.

    Args:
        seconds: Not negative.

    Returns:
        Seconds; from a minute on minutes and seconds, from an hour on hours and minutes.

    Examples:
        >>> spell_seconds(0.0421), spell_seconds(3.21), spell_seconds(200), spell_seconds(4000)
        ('0.042 s', '3.2 s', '3 min 20 s', '1 h 6 min')
    """
    if seconds < 59.95:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def spell_points(count: int) -> str:
    """Say how many points.

    Args:
        count: Any.

    Returns:
        Such as ``1 point``.
    """
    return "1 point" if count == 1 else f"{count} points"


def spell_rate(rate: float) -> str:
    """Say how fast points come.

    Args:
        rate: Points in a second.

    Returns:
        Three digits, in full.

    Examples:
        >>> spell_rate(66193.2), spell_rate(0.5354)
        ('66,200 points/s', '0.535 points/s')
    """
    return f"{float(f'{rate:.3g}'):,.15g} points/s"
