"""Where files are: paths, and resources inside installed packages."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.errors import GridError

PACKAGE = "pkg://"
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, csv.Error)


@contextmanager
def opened(path: str) -> Iterator[Path]:
    """Give a path on the file system for a path or a resource, and name the file in all errors.

    Args:
        path: A path, or ``pkg://package/folder/file`` for a file inside an installed package.

    Yields:
        Where the file is, while the context lasts.

    Raises:
        GridError: There is no such file, or reading it fails.
    """
    try:
        if path.startswith(PACKAGE):
            with resources.as_file(_resource(path)) as place:
                yield place
        else:
            yield Path(path)
    except UNREADABLE as error:
        raise GridError(f"grid.path: {path} cannot be read: {error}") from error


def locate(path: str) -> str:
    """Make a path independent of the current directory and make sure that the file exists.

    Args:
        path: As the user writes it.

    Returns:
        The absolute path, or the ``pkg://`` path unchanged.

    Raises:
        GridError: There is no such file.
    """
    if path.startswith(PACKAGE):
        if not _resource(path).is_file():
            raise GridError(f"grid.path: {path}: the package has no such file; check the spelling")
        return path
    place = Path(path).expanduser().absolute()
    if not place.is_file():
        raise GridError(
            f"grid.path: there is no file {path} (looked for {place}); relative paths start at "
            "the current directory"
        )
    return str(place)


def _resource(path: str) -> Any:
    package, *parts = path.removeprefix(PACKAGE).split("/")
    try:
        return resources.files(package).joinpath(*parts)
    except (ImportError, TypeError, ValueError) as error:
        raise GridError(
            f"grid.path: {path}: package {package!r} cannot be imported ({error}); write "
            "pkg://package/folder/file"
        ) from error
