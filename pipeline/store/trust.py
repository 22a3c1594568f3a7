"""Opens files from anybody: nothing outside them is ever read."""

from __future__ import annotations

from pathlib import Path

import h5py

from pipeline.errors import StoreError
from pipeline.store.layout import GROUPS, SCHEMA
from pipeline.store.run_directory import SHARDS


def open_checked(path: Path) -> h5py.File:
    """Open a file of this schema that refers to nothing outside its own directory.

    Args:
        path: The file.

    Returns:
        The open file.

    Raises:
        StoreError: It cannot be read, has another schema, or refers to foreign files.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error}") from error
    schema = file.attrs.get("schema")
    if schema != SCHEMA:
        raise StoreError(f"{path}: expected a file of schema {SCHEMA!r}, got {schema!r}")
    for group in (file, *(file[name] for name in GROUPS if name in file)):
        for name in group:
            _require_own(group, name, path)
    return file


def _require_own(group: h5py.Group, name: str, path: Path) -> None:
    link = group.get(name, getlink=True)
    stored = None if isinstance(link, h5py.ExternalLink) else group[name]
    foreign = stored is None or (isinstance(stored, h5py.Dataset) and bool(stored.external))
    if foreign or (
        isinstance(stored, h5py.Dataset) and stored.is_virtual and not _own_sources(stored)
    ):
        raise StoreError(f"{path}: {name!r} refers to another file; such files are not opened")


def _own_sources(stored: h5py.Dataset) -> bool:
    names = (Path(source.file_name) for source in stored.virtual_sources())
    return all(not name.is_absolute() and name.parts[:-1] == (SHARDS,) for name in names)
