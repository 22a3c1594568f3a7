"""Reads a shard of the run that is put together: one look, at nothing but what is used of it.

A run may have 10⁵ shards, so that every object that is opened counts. The seal is checked first, and
whatever is read is made sure to lie in the file itself; no other object is touched. Files that
anybody opens later are looked at as a whole, by `pipeline.store.files.trust`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, final

import h5py
import numpy as np
from h5py import h5d, h5f, h5s
from numpy.typing import NDArray

from pipeline.errors import StoreError, one_line
from pipeline.store.files.checksum import spell_crc32
from pipeline.store.files.compression import has_zstd
from pipeline.store.files.seal import require_seal
from pipeline.store.layout import STATUS, Dataset
from pipeline.store.parts.part import (
    HDF5_ERRORS,
    REMEDY,
    Content,
    offset_of_rows,
    opened,
    own_dataset,
    own_group,
    read_content,
    require_rows,
)

CIRCUMSTANCES = ("host", "slurm_job_id", "device", "torch", "threads", "git_commit")
PROVENANCE = (*CIRCUMSTANCES, "started", "finished", "failures_json")
CERTIFICATE = ("rows_checked", "rows_error", "disagreements")
MOST_READ = 1000  # shards of an unfinished run that are opened to tell of it, a millisecond each
ACCOUNT = "account_json"  # the entry of the provenance with all of these


@dataclass(frozen=True)
class Account:
    """What a shard says of itself.

    Attributes:
        bytes: Size of its file.
        counts: Name of a status -> points that have it.
        mark: Of its seal; None where that was not checked.
        provenance: The entries of `PROVENANCE`.
        certificate: The entries of `CERTIFICATE`.
    """

    bytes: int
    counts: Mapping[str, int]
    mark: int | None
    provenance: Mapping[str, Any]
    certificate: Mapping[str, Any]


@final
class OwnShard:
    """A shard that is open, and holds the points that it should.

    Args:
        file: As HDF5 sees it.
        path: Where it is.
        points: Number of its rows.
        mark: Of its seal; None where that was not checked.
    """

    def __init__(self, file: h5f.FileID, path: Path, points: int, mark: int | None) -> None:
        self._file, self._path, self._points, self._mark = file, path, points, mark

    def offsets(self, datasets: Sequence[Dataset]) -> list[int]:
        """Find where rows lie; refuse a shard that lacks a dataset, or has it in another form.

        A mapping would show fill values.

        Args:
            datasets: What the result will hold.

        Returns:
            The first byte of each; -1 where only HDF5 can read it.

        Raises:
            StoreError: One does not fit.
        """
        found = (
            offset_of_rows(self._file, self._path, self._points, dataset) for dataset in datasets
        )
        return [-1 if offset is None else offset for offset in found]

    def read(self, dataset: Dataset) -> NDArray[Any]:
        """Read all rows of a dataset.

        Args:
            dataset: Which.

        Returns:
            (B, …).
        """
        stored = self._stored(dataset)
        if stored.get_create_plist().get_nfilters():
            has_zstd()  # HDF5 has to be taught in each process; what fails without it says so
        rows = np.empty((self._points, *dataset.shape), dataset.dtype)
        stored.read(h5s.ALL, h5s.ALL, rows)
        return rows

    def rows(self, dataset: Dataset) -> NDArray[Any]:
        """Read all rows of a dataset, and compare them with their checksum.

        Args:
            dataset: Which.

        Returns:
            (B, …).

        Raises:
            StoreError: They are not those that were written.
        """
        rows = self.read(dataset)
        expected = self._entries("checksums", [dataset.name])[dataset.name]
        seen = spell_crc32(zlib.crc32(rows.data))
        if seen != expected:
            raise StoreError(
                f"{self._path}: {dataset.name} has changed: expected {expected}, got {seen}; {REMEDY}"
            )
        return rows

    def account(self, codes: NDArray[Any]) -> Account:
        """Read what it says of itself.

        Args:
            codes: The status of each point, as `read` gives it.

        Returns:
            Its account.
        """
        return Account(
            self._path.stat().st_size,
            {name: int(np.count_nonzero(codes == code)) for name, code in STATUS.items()},
            self._mark,
            **self._said(),
        )

    def _stored(self, dataset: Dataset) -> h5d.DatasetID:
        stored = own_dataset(self._file, self._path, dataset.name)
        require_rows(stored, self._path, self._points, dataset)
        return stored

    def _said(self) -> dict[str, dict[str, Any]]:
        """What it says as one text, which older files do not have: an object takes longer than a text."""
        provenance = own_group(self._file, self._path, "provenance")
        if not provenance.links.exists(ACCOUNT.encode()):
            return {
                "provenance": self._entries("provenance", PROVENANCE),
                "certificate": self._entries("certificate", CERTIFICATE),
            }
        said = json.loads(_value(own_dataset(provenance, self._path, ACCOUNT), ACCOUNT))
        return _account(said["provenance"], said["certificate"])

    def _entries(self, group: str, names: Sequence[str]) -> dict[str, Any]:
        held = own_group(self._file, self._path, group)
        return {name: _value(own_dataset(held, self._path, name), name) for name in names}


def account_entry(provenance: Mapping[str, Any], certificate: Mapping[str, Any]) -> dict[str, str]:
    """Make the entry of the provenance by which a shard is put together with many others.

    Args:
        provenance: Of a shard.
        certificate: Of the same.

    Returns:
        What a result takes over from each shard, as one text.
    """
    return {ACCOUNT: json.dumps(_account(provenance, certificate))}


def _account(
    provenance: Mapping[str, Any], certificate: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    return {
        "provenance": {name: provenance[name] for name in PROVENANCE},
        "certificate": {name: certificate[name] for name in CERTIFICATE},
    }


def _value(stored: h5d.DatasetID, name: str) -> Any:
    text = h5py.check_string_dtype(stored.dtype) is not None
    if stored.shape != () or not (text or stored.dtype.kind in "iufb"):
        raise ValueError(f"{name!r} is no text and no number")
    value = np.empty((), stored.dtype)
    stored.read(h5s.ALL, h5s.ALL, value)
    single = value.item()
    return single.decode() if isinstance(single, bytes) else single


@contextmanager
def own_shard(path: Path, content: Content, edited: bool = False) -> Iterator[OwnShard]:
    """Open a shard of the run that is put together.

    Args:
        path: The file.
        content: What it has to hold: by its name alone it would count.
        edited: Whether it may have been changed since it was written.

    Yields:
        The shard.

    Raises:
        StoreError: It cannot be read, or holds other points, or those of another run.
    """
    mark = None if edited else require_seal(path).mark
    try:
        with opened(path) as file:
            require_content(path, read_content(file), content)
            yield OwnShard(file, path, content.stop - content.start, mark)
    except HDF5_ERRORS as error:
        raise StoreError(f"{path} cannot be read: {one_line(error)}; {REMEDY}") from error


def require_content(path: Path, found: Content, expected: Content | None) -> None:
    """Refuse a shard that belongs to another plan.

    Args:
        path: The file.
        found: What it holds.
        expected: What it has to hold; None where no shard should be.

    Raises:
        StoreError: It holds something else.
    """
    if found != expected:
        wanted = None if expected is None else astuple(expected)
        raise StoreError(
            f"{path} is in the way: expected run id, start, stop {wanted}, got {astuple(found)}; {REMEDY}"
        )
