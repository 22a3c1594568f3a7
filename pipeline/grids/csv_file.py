"""Tables in files of comma-separated values."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from pipeline.errors import GridError
from pipeline.grids.tables import MemoryTable


def read_csv(path: str, place: Path) -> MemoryTable:
    """Read a file of comma-separated numbers, with or without names in its first line.

    Args:
        path: The file, as errors name it.
        place: Where the file is now.

    Returns:
        The table.

    Raises:
        GridError: A line has another length, or something in it is not a number.
    """
    with place.open(newline="", encoding="utf-8-sig") as file:
        lines = _lines(file, path)
        where, first = next(lines, ("", []))
        names = _header(first)
        numbers = array("d", () if names else (_number(cell, where) for cell in first))
        for where, cells in lines:
            if len(cells) != len(first):
                raise GridError(
                    f"{where} has {len(cells)} values, the first line has {len(first)}; "
                    "give every line the same number"
                )
            numbers.extend(_number(cell, where) for cell in cells)
    return MemoryTable(np.array(numbers).reshape(-1, max(len(first), 1)), names)


def _lines(file: TextIO, path: str) -> Iterator[tuple[str, list[str]]]:
    """The cells of every line that is not blank, with the words for where they are."""
    reader = csv.reader(file)
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield f"grid.path: {path}, line {reader.line_num}", cells


def _header(cells: Sequence[str]) -> tuple[str, ...]:
    """Names, if no cell is a number; a row with one number in it is a row of numbers."""
    names = tuple(cell.strip().lstrip("#").strip() for cell in cells)
    return () if any(_is_number(cell) for cell in cells) else names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise GridError(
            f"{where}: {cell.strip()!r} is not a number; separate numbers by commas and put names "
            "in the first line only"
        ) from None
