"""Results in other formats: NumPy files, Zarr, AnnData, CSV of chosen points."""

from __future__ import annotations

import csv
import itertools
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import StoreError, nearest
from pipeline.store.arrays.row_array import RowArray
from pipeline.store.export.annotated import write_h5ad
from pipeline.store.export.consolidate import require_finished
from pipeline.store.layout import STATUS
from pipeline.store.reading.reader import Results

BLOCK = 16 << 20  # bytes copied at a time
CHUNK = 1 << 20  # bytes of a chunk of Zarr
MOST_ROWS = 1_000_000  # of a table of text


def export(results: Results, target: Path, kind: str, names: Sequence[str], points: str) -> None:
    """Write datasets in another format; nothing remains of an export that fails.

    Args:
        results: Open results.
        target: The file or directory to write; never replaced.
        kind: One of `KINDS`.
        names: Datasets; all of them where there are none.
        points: Which points, e.g. ``0,5,10:20``; all of them where it is empty.

    Raises:
        StoreError: The kind, a name or a point is unknown, or the target is in the way.
    """
    if kind not in KINDS:
        raise StoreError(f"format {kind!r} is unknown. {nearest(kind, KINDS)}")
    if target.exists():
        raise StoreError(f"{target} is in the way; choose another name or remove it")
    if not points:
        require_finished(results)
    elif kind != "csv":
        raise StoreError(f"points are chosen for csv; {kind} takes the whole result")
    first = ("x", "value", "gradient", "jacobian", "hessian")
    ordered = [*(name for name in first if name in results.names), *results.names]
    arrays = [results[name] for name in dict.fromkeys(names or ordered)]
    chosen = select_points(points, len(results))
    with _appearing(target) as temporary:
        KINDS[kind](results, arrays, temporary, chosen)


def select_points(text: str, count: int) -> Sequence[int]:
    """Read a choice of points.

    Args:
        text: Indices and slices, as in ``0,5,10:20,-1``; all points where it is empty.
        count: Number of points.

    Returns:
        Indices.

    Raises:
        StoreError: It is no such choice, or there is no such point.

    Examples:
        >>> select_points("0,3:5,-1", 10)
        [0, 3, 4, 9]
    """
    if not text:
        return range(count)
    chosen: list[int] = []
    for part in text.split(","):
        try:
            ends = [int(end) if end.strip() else None for end in part.split(":")]
            if len(ends) == 1:
                chosen.append(range(count)[ends[0] or 0])
            else:
                chosen += range(count)[slice(*ends)]
        except (ValueError, IndexError, TypeError) as error:
            raise StoreError(
                f"points: expected indices and slices such as 0,5,10:20 below {count}, got {part!r}"
            ) from error
    return chosen


def _write_npy(
    results: Results, arrays: Sequence[RowArray], target: Path, points: Sequence[int]
) -> None:
    target.mkdir()
    for array in arrays:
        path = target / f"{array.name}.npy"
        copy = np.lib.format.open_memmap(path, "w+", array.dtype, array.shape)
        for start, stop in _blocks(array, BLOCK):
            array.read(start, stop, copy[start:stop])
        copy.flush()


def _write_zarr(
    results: Results, arrays: Sequence[RowArray], target: Path, points: Sequence[int]
) -> None:
    try:
        import zarr
    except ImportError as error:
        raise StoreError(
            "Zarr is not installed; pip install 'pipeline-derivatives[zarr]'"
        ) from error
    group = zarr.open_group(target, mode="w-", zarr_format=3)
    group.attrs.update({key: _plain(value) for key, value in results.attrs.items()})
    for array in arrays:
        rows = max(CHUNK // max(array.row_bytes, 1), 1)
        made = group.create_array(
            array.name, shape=array.shape, dtype=array.dtype, dimension_names=array.dims,
            chunks=(min(rows, len(array)), *array.shape[1:]),
        )  # fmt: skip
        made.attrs.update({key: _plain(value) for key, value in array.attrs.items()})
        for start, stop in _blocks(array, max(BLOCK // CHUNK, 1) * rows * array.row_bytes):
            made[start:stop] = array.read(start, stop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that other programs may not read these; they need not
        zarr.consolidate_metadata(target)


def _write_csv(
    results: Results, arrays: Sequence[RowArray], target: Path, points: Sequence[int]
) -> None:
    if len(points) > MOST_ROWS:
        raise StoreError(
            f"{len(points)} points make a table of more than {MOST_ROWS} rows; choose some by "
            "points, or export to npy or zarr"
        )
    meanings = {code: word for word, code in STATUS.items()}
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["point", *itertools.chain(*(_columns(results, array) for array in arrays))]
        )
        for point in points:
            row: list[Any] = [point]
            for array in arrays:
                value = array[point]
                known = array.name == "status"
                row += [meanings[int(value)]] if known else map(repr, value.ravel().tolist())
            writer.writerow(row)


def _write_h5ad(
    results: Results, arrays: Sequence[RowArray], target: Path, points: Sequence[int]
) -> None:
    write_h5ad(results, arrays, target)


def _columns(results: Results, array: RowArray) -> Iterator[str]:
    labels = [results.names_along(dimension) for dimension in array.dims[1:]]
    if not labels:
        yield array.name
        return
    for entry in itertools.product(*labels):
        yield f"{array.name}[{','.join(entry)}]"


def _blocks(array: RowArray, size: int) -> Iterator[tuple[int, int]]:
    rows = max(size // max(array.row_bytes, 1), 1)
    for start in range(0, len(array), rows):
        yield start, min(start + rows, len(array))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Give a temporary name of a file or directory that gets its own when all is written."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.rename(target)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error}; nothing is left of it") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        elif temporary.is_file():
            temporary.unlink()


Write = Callable[[Results, Sequence[RowArray], Path, Sequence[int]], None]
KINDS: dict[str, Write] = {
    "csv": _write_csv, "h5ad": _write_h5ad, "npy": _write_npy, "zarr": _write_zarr,
}  # fmt: skip
