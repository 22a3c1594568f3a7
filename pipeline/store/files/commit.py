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
def committed(final: Path, *, shared: bool = True) -> Iterator[Path]:
    """Give a temporary path that becomes `final` when the block ends well.

    Where the final name is there already, somebody else has committed the same content and the
    temporary is dropped. When the block raises, nothing remains.

    Args:
        final: The name that means done.
        shared: Whether whoever else writes it writes the same; else the one who comes late is told.

    Yields:
        A path that does not exist yet, in the same directory.

    Raises:
        StoreError: The file cannot be written: no space, no permission, a failing disk.
    """
    mark = f"{_place()}.{os.getpid()}.{uuid.uuid4().hex}"
    temporary = final.parent / f".{final.stem}.{mark}.tmp"
    try:
        yield temporary
        if not _publish(temporary, final) and not shared:
            raise StoreError(
                f"{final} is in the way: somebody else has written it meanwhile; choose another name"
            )
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

    They belong to processes that are no more, as far as their numbers mean something here, or somebody else has
    committed the same: so nothing that another machine or container writes is taken from it, and what these have left
    goes when what it was for is there.

    Args:
        directory: Where they lie.
    """
    here, committed_names = _place(), {path.stem for path in directory.glob("*.*")}
    for path in directory.glob(".*.tmp"):
        parts = path.name.split(".")
        name, place, process = parts[1], ".".join(parts[2:-3]), parts[-3]
        dead = place == here and process.isdigit() and not _alive(int(process))
        if dead or name in committed_names:
            path.unlink(missing_ok=True)


def _place() -> str:
    """Where the number of a process means something: a start of a machine, and a namespace in it."""
    # the name of a host alone is no evidence: containers and machines of one image have the same
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:  # another system than Linux: nobody here is known to have ended
        boot, namespace = "unknown", uuid.uuid4().hex
    return f"{socket.gethostname()}.{boot}.{namespace}"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _publish(temporary: Path, final: Path) -> bool:
    """Give the file its name, or say that somebody else was first."""
    try:
        _sync(temporary)
        return _link(temporary, final)
    except FileNotFoundError:
        if not final.exists():  # else somebody else was first, and has tidied up
            raise
        return False


def _link(temporary: Path, final: Path) -> bool:
    """Give the file its name unless somebody else has it: by the first way that the file system knows."""
    for give in (os.link, _rename_to_nothing):
        try:
            give(temporary, final)
        except FileExistsError:
            return final.samefile(temporary)  # of a network file system that was asked twice
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise
        else:
            return True
    return _rename_by_claim(temporary, final)


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


def _rename_by_claim(temporary: Path, final: Path) -> bool:
    """Rename while a file of another name, which only one process can make, keeps all others away."""
    claim = final.parent / f".{final.name}.claim"
    deadline = time.monotonic() + CLAIM_SECONDS
    while not _made(claim):
        if final.exists():
            return False
        if time.monotonic() > deadline:
            raise OSError(
                errno.EBUSY, "another process was about to give the name; remove", str(claim)
            )
        time.sleep(0.05)
    try:
        if final.exists():
            return False
        temporary.rename(final)
        return True
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
