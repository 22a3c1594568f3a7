"""Patterns that a user gives: from a file, from another result, or from memory."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.autograd.pattern import Pattern
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.job import Format
from pipeline.store.arrays.sparse_rows import SparseRows
from pipeline.store.reading.reader import open_results

KINDS = (
    "a result with a sparse derivative, .npz of scipy.sparse.save_npz, .mtx (Matrix Market), "
    "or .npy with a mask"
)
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, PipelineError)


def read_pattern(given: Any) -> Pattern:
    """Read a pattern; of stored numbers only the place counts, so that a stored zero is an entry.

    Args:
        given: A file or the directory of a run; or `SparseRows` of another result, a matrix of
            scipy.sparse, or a mask (m, n), sparse or dense, of torch or NumPy.

    Returns:
        The pattern, of its own shape.

    Raises:
        ConfigurationError: There is no such file, or it holds no pattern.
    """
    if not isinstance(given, str | Path):
        return _of_matrix(given, f"a {type(given).__name__}")
    path = Path(given).expanduser()
    if not path.exists():
        raise ConfigurationError([f"pattern: there is no file {path}; expected {KINDS}"])
    suffix = ".h5" if path.is_dir() else path.suffix.lower()
    if suffix not in READERS:
        raise ConfigurationError([f"pattern: {path} has the suffix {suffix!r}; expected {KINDS}"])
    try:
        matrix = READERS[suffix](path)
    except ImportError:
        raise ConfigurationError(
            [
                f"pattern: SciPy is not installed, which reads {suffix}; pip install 'pipeline-derivatives[sparse]'"
            ]
        ) from None
    except UNREADABLE as error:
        raise ConfigurationError([f"pattern: {path} cannot be read: {error}"]) from error
    return _of_matrix(matrix, str(path))


def sparse_format(format: Format, pattern: Any) -> Format:  # noqa: A002 - the user's word
    """Say how results are kept where a pattern may be given.

    Args:
        format: dense, sparse or auto, as asked for.
        pattern: What is given; None for nothing.

    Returns:
        sparse where a pattern is given.

    Raises:
        ConfigurationError: A pattern is given for dense results.
    """
    if pattern is not None and format == "dense":
        raise ConfigurationError(
            [
                "pattern: it says which entries of a sparse result are kept; leave it out, or ask for format=sparse"
            ]
        )
    return format if pattern is None else "sparse"


def _of_matrix(matrix: Any, name: str) -> Pattern:
    shape: tuple[int, ...]
    if isinstance(matrix, SparseRows):
        rows, columns, shape = matrix.rows, matrix.indices, matrix.shape[1:]
    elif isinstance(matrix, torch.Tensor) and matrix.layout != torch.strided:
        rows, columns = matrix.to_sparse().coalesce().indices().cpu()
        shape = tuple(matrix.shape)
    elif hasattr(matrix, "tocoo"):  # of scipy.sparse
        entries = matrix.tocoo()
        rows, columns, shape = entries.row, entries.col, entries.shape
    else:
        mask = _mask(matrix, name)
        rows, columns = mask.nonzero()
        shape = mask.shape
    first, second = (torch.as_tensor(np.asarray(each, dtype=np.int64)) for each in (rows, columns))
    return Pattern.of_flat(first * shape[1] + second, (shape[0], shape[1]))


def _mask(matrix: Any, name: str) -> np.ndarray[Any, Any]:
    mask = matrix.cpu().numpy() if isinstance(matrix, torch.Tensor) else np.asarray(matrix)
    if mask.ndim != 2 or mask.dtype.kind not in "biuf":
        raise ConfigurationError(
            [f"pattern: expected {KINDS}; got {name} of shape {mask.shape} and dtype {mask.dtype}"]
        )
    return mask


def _of_result(path: Path) -> SparseRows:
    with open_results(path) as results:
        found = [name for name in ("jacobian", "hessian") if f"{name}_sparse" in results.stored]
        if not found:
            raise PipelineError(f"it has no sparse derivative, but {', '.join(results.stored)}")
        rows = results.sparse(found[0])
        return SparseRows(np.empty((0, rows.nnz)), rows.indptr, rows.indices, rows.shape[2])


def _of_npz(path: Path) -> Any:
    from scipy.sparse import load_npz

    return load_npz(path)


def _of_market(path: Path) -> Any:
    from scipy.io import mmread

    return mmread(path)


READERS: dict[str, Callable[[Path], Any]] = {
    ".h5": _of_result,
    ".hdf5": _of_result,
    ".npz": _of_npz,
    ".mtx": _of_market,
    ".npy": lambda path: np.load(path, allow_pickle=False),
}
