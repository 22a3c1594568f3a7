"""Which data files a plugin reads: what stands in them determines the numbers as its source does."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
SYSTEM = ("/proc/", "/sys/", "/dev/")
CODE = (".py", ".pyc", ".so", ".pyd", ".pth")  # the source has a digest of its own
_watching = threading.local()
_at_import: dict[Path, frozenset[Path]] = {}


@contextmanager
def files_read() -> Iterator[set[Path]]:
    """Watch which files this thread opens for reading inside the block.

    Python tells of every file that it opens itself: ``open``, ``numpy.load``, ``torch.load``, pandas.
    Libraries that open files on their own, such as HDF5, do not; their files have to be declared.

    Yields:
        The files that are there when the block ends, without code and what is installed.
    """
    _listen()
    before, seen, found = getattr(_watching, "seen", None), set[str](), set[Path]()
    _watching.seen = seen
    try:
        yield found
    finally:
        _watching.seen = before
        found |= {Path(name).resolve() for name in seen if _is_data(name)}
        if before is not None:
            before |= seen


@cache
def _listen() -> None:
    sys.addaudithook(_hear)  # stays for good: Python cannot take one back


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open":
        return
    seen: set[str] | None = getattr(_watching, "seen", None)
    name, mode, flags = arguments
    if seen is None or isinstance(name, int) or ((flags or 0) & os.O_ACCMODE) == os.O_WRONLY:
        return
    if mode is None or "r" in mode:
        seen.add(os.path.abspath(os.fsdecode(name)))  # noqa: PTH100 - the directory may change


def _is_data(name: str) -> bool:
    path = os.path.realpath(name)
    known = name.startswith((*INSTALLED, *SYSTEM)) or path.startswith((*INSTALLED, *SYSTEM))
    return not known and not path.endswith(CODE) and Path(path).is_file()


@contextmanager
def importing(plugin: Path) -> Iterator[None]:
    """Remember which files a plugin reads while it is imported.

    Args:
        plugin: Its file.
    """
    with files_read() as found:
        yield
    _at_import[plugin.resolve()] = frozenset(found)


def read_at_import(plugin: Path) -> frozenset[Path]:
    """Recall which files a plugin has read while it was imported.

    Args:
        plugin: Its file.

    Returns:
        The files.
    """
    return _at_import.get(plugin.resolve(), frozenset())


def digest_with_files(digest: str, files: Iterable[Path]) -> str:
    """Make what stands in files part of a digest.

    Args:
        digest: Of a source.
        files: Where they lie and in which order does not matter.

    Returns:
        Hexadecimal digest; the same one where there are no files.
    """
    contents = sorted({_content(path) for path in files})
    return hashlib.sha256("".join([digest, *contents]).encode()).hexdigest() if contents else digest


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
