"""Files that are either complete under their final name or not there at all.

Protocol: write a temporary in the same directory, fsync it, link it to the final name (which
never replaces anything), remove the temporary, fsync the directory. Only then may anybody be told.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError, one_line

# what file systems say that have no links, or no such rename
NOT_SUPPORTED = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
AT_FDCWD, RENAME_NOREPLACE = -100, 1
CLAIM_SECONDS = 20.0  # for which a claim is respected


@contextmanager
def committed(final: Path) -> Iterator[Path]:
    """Give a temporary path that becomes `final` when the block ends well.

    Where the final name is there already, somebody else has committed the same content and the
    temporary is dropped. When the block raises, nothing remains.

    Args:
        final: The name that means done.

    Yields:
        A path that does not exist yet, in the same directory.

    Raises:
        StoreError: The file cannot be written: no space, no permission, a failing disk.
    """
    temporary = final.parent / f".{final.stem}.{_host()}.{os.getpid()}.{uuid.uuid4().hex}.tmp"
    try:
        yield temporary
        _publish(temporary, final)
        temporary.unlink(missing_ok=True)
        _sync(final.parent)
    except OSError as error:
        raise StoreError(
            f"cannot write {final}: {one_line(error)}; finished shards are safe: make room or mend the cause, "
            "then run the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_stale(directory: Path) -> None:
    """Remove temporaries that nobody needs.

    They belong to processes of this host that are no more, or somebody else has committed the same.

    Args:
        directory: Where they lie.
    """
    committed_names = {path.stem for path in directory.glob("*.*")}
    for path in directory.glob(".*.tmp"):
        parts = path.name.split(".")
        name, host, process = parts[1], ".".join(parts[2:-3]), parts[-3]
        dead = host == _host() and process.isdigit() and not _alive(int(process))
        if dead or name in committed_names:
            path.unlink(missing_ok=True)


def _host() -> str:
    return socket.gethostname()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _publish(temporary: Path, final: Path) -> None:
    try:
        _sync(temporary)
        _link(temporary, final)
    except FileNotFoundError:
        if not final.exists():  # else somebody else was first, and has tidied up
            raise


def _link(temporary: Path, final: Path) -> None:
    """Give the file its name unless somebody else has it: by the first way that the file system knows."""
    for give in (os.link, _rename_to_nothing):
        try:
            give(temporary, final)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise
        else:
            return
    _rename_by_claim(temporary, final)


def _rename_to_nothing(temporary: Path, final: Path) -> None:
    """Rename in one step that fails where the name is taken: a system call of Linux."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old library
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    names = os.fsencode(temporary), os.fsencode(final)
    if rename(AT_FDCWD, names[0], AT_FDCWD, names[1], ctypes.c_uint(RENAME_NOREPLACE)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(final))


def _rename_by_claim(temporary: Path, final: Path) -> None:
    """Rename while a file of another name, which only one process can make, keeps all others away."""
    claim = final.parent / f".{final.name}.claim"
    deadline = time.monotonic() + CLAIM_SECONDS
    while not _made(claim):
        if final.exists():
            return
        if time.monotonic() > deadline:
            raise OSError(
                errno.EBUSY, "another process was about to give the name; remove", str(claim)
            )
        time.sleep(0.05)
    try:
        if not final.exists():
            temporary.rename(final)
    finally:
        claim.unlink()


def _made(claim: Path) -> bool:
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
