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
from pipeline.store.arrays.sparse_tensors import SparseTensors
from pipeline.store.arrays.sparse_values import SparseValues
from pipeline.store.layout import SPARSE
from pipeline.store.reading.reader import open_results

KINDS = (
    "a result with a sparse derivative, .npz of scipy.sparse.save_npz, .mtx (Matrix Market), "
    "or .npy with a mask"
)
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, PipelineError)


def read_pattern(given: Any) -> Pattern:
    """Read a pattern; of stored numbers only the place counts, so that a stored zero is an entry.

    Args:
        given: A file or the directory of a run; or what `sparse` gives of another result, a matrix
            of scipy.sparse, or a mask (m, n), sparse or dense, of torch or NumPy; of as many indices
            as the derivative has.

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
    if isinstance(matrix, SparseValues):
        places, shape = matrix.coordinates, matrix.shape[1:]
    elif isinstance(matrix, torch.Tensor) and matrix.layout != torch.strided:
        places, shape = tuple(matrix.to_sparse().coalesce().indices().cpu()), tuple(matrix.shape)
    elif hasattr(matrix, "tocoo"):  # of scipy.sparse
        entries = matrix.tocoo()
        places, shape = getattr(entries, "coords", (entries.row, entries.col)), entries.shape
    else:
        mask = _mask(matrix, name)
        places, shape = mask.nonzero(), mask.shape
    flat = np.ravel_multi_index(tuple(np.asarray(each, np.int64) for each in places), shape)
    return Pattern.of_flat(torch.from_numpy(flat), shape)


def _mask(matrix: Any, name: str) -> np.ndarray[Any, Any]:
    mask = matrix.cpu().numpy() if isinstance(matrix, torch.Tensor) else np.asarray(matrix)
    if mask.ndim < 2 or mask.dtype.kind not in "biuf":
        raise ConfigurationError(
            [f"pattern: expected {KINDS}; got {name} of shape {mask.shape} and dtype {mask.dtype}"]
        )
    return mask


def _of_result(path: Path) -> SparseValues:
    with open_results(path) as results:
        found = [name for name in results.stored if name.endswith(SPARSE)]
        if not found:
            raise PipelineError(f"it has no sparse derivative, but {', '.join(results.stored)}")
        sparse = results.sparse(found[0])
        entries = np.ravel_multi_index(sparse.coordinates, sparse.shape[1:])
        return SparseTensors(np.empty((0, sparse.nnz)), entries, sparse.shape[1:])


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
