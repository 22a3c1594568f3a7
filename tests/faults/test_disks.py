"""Disks that fail in the middle of a run: an error, nothing lost, and the same numbers once mended."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import open_results
from pipeline.store.export.integrity import check_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
COMMAND = [
    sys.executable, "-m", "pipeline", "job=all", "grid.count=[20,10]", "shard_rows=40", "route=vmap",
]  # fmt: skip


def give_up(reason):
    if os.environ.get("CI"):
        pytest.fail(f"CI has to run this test: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        give_up("no C compiler")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def run(place, *words, **environment):
    """The job, in a directory of its own; relative paths, as users have them."""
    return subprocess.run(
        [*COMMAND, f"output_dir={place}", *words], env={**os.environ, **environment},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def fault(shim, place, call, at, number):
    """Environment in which a call on files under a place fails from some moment on."""
    return {
        "LD_PRELOAD": str(shim), "FAULT_PREFIX": str(place), "FAULT_CALL": call,
        "FAULT_AT": str(at), "FAULT_ERRNO": str(number),
    }  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = tmp_path_factory.mktemp("undisturbed")
    assert run(place).returncode == 0
    (result,) = place.rglob("result.h5")
    with open_results(result) as results:
        return {name: results[name][:] for name in results.names}


def require_mended(place, undisturbed):
    """The same command again finishes, with the same numbers, and leaves nothing behind."""
    done = run(place)
    assert done.returncode == 0, done.stderr
    (result,) = place.rglob("result.h5")
    with open_results(result) as results:
        for name, values in undisturbed.items():
            assert np.array_equal(results[name][:], values), name
    assert not list(place.rglob("*.tmp"))


def require_one_error(done, words):
    """One sentence, and nothing that HDF5 or Python grumbles."""
    assert done.returncode == 1, (done.returncode, done.stdout)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line
    for grumble in ("Traceback", "Exception ignored", "HDF5-DIAG", 'File "/'):
        assert grumble not in done.stderr, done.stderr


@pytest.mark.parametrize("store", ["plain", "compact"])
@pytest.mark.parametrize(
    ("call", "at", "number"),
    [
        ("mkdir", 1, errno.EROFS),
        ("write", 1, errno.EIO),
        ("write", 25, errno.EROFS),
        ("write", 4, errno.ENOSPC),
        ("write", 15, errno.EIO),
        ("write", 60, errno.ENOSPC),
        ("write", 150, errno.EDQUOT),
        ("fsync", 1, errno.EIO),
        ("fsync", 3, errno.EIO),
        ("fsync", 6, errno.EIO),
        ("link", 1, errno.EIO),
        ("link", 3, errno.EROFS),
        ("link", 7, errno.ENOSPC),
    ],
)
def test_a_call_that_fails_from_some_moment_on(
    tmp_path, shim, undisturbed, call, at, number, store
):
    done = run(tmp_path, f"store={store}", **fault(shim, tmp_path, call, at, number))
    require_one_error(done, os.strerror(number))
    assert not list(tmp_path.rglob("result.h5"))
    for shard in tmp_path.rglob("shard-*.h5"):
        assert check_file(shard) == []
    require_mended(tmp_path, undisturbed)


@pytest.mark.parametrize("at", [1, 2, 4, 8, 20, 60, 120])
def test_a_disk_that_cannot_be_read(tmp_path, shim, undisturbed, at):
    assert run(tmp_path).returncode == 0
    (result,) = tmp_path.rglob("result.h5")
    environment = fault(shim, tmp_path, "read", at, errno.EIO)
    reader = [sys.executable, "-m", "pipeline.results", "verify", str(result)]
    done = subprocess.run(
        reader, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert os.strerror(errno.EIO) in done.stderr
    assert "Traceback" not in done.stderr
    result.unlink()
    require_one_error(run(tmp_path, **environment), os.strerror(errno.EIO))
    assert not result.exists()
    require_mended(tmp_path, undisturbed)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_shard_that_is_damaged_before_the_run_goes_on(tmp_path, undisturbed, damage):
    assert run(tmp_path).returncode == 0
    (result,) = tmp_path.rglob("result.h5")
    result.unlink()
    shard = sorted(result.parent.glob("shards/*.h5"))[2]
    content = shard.read_bytes()
    with open_results(shard) as results:
        offset = content.index(results.hessian[5].tobytes())
    damaged = {
        "truncated": content[: len(content) // 2],
        "flipped": content[:offset] + bytes([content[offset] ^ 4]) + content[offset + 1 :],
        "empty": b"",
        "foreign": sorted(result.parent.glob("shards/*.h5"))[1].read_bytes(),
    }
    shard.write_bytes(damaged[damage])
    done = run(tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert shard.name in done.stderr
    assert "remove" in done.stderr
    assert not result.exists()
    shard.unlink()
    require_mended(tmp_path, undisturbed)


def test_a_clock_that_jumps(tmp_path, undisturbed):
    """Nothing is decided by the time of day: neither what is done nor what is stale."""
    assert run(tmp_path).returncode == 0
    (result,) = tmp_path.rglob("result.h5")
    shards = sorted(result.parent.glob("shards/*.h5"))
    result.unlink()
    shards[0].unlink()
    for path, when in zip(result.parent.rglob("*"), (0, 2**31, 4e9, 1, 1e9), strict=False):
        os.utime(path, (when, when))
    require_mended(tmp_path, undisturbed)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, which can be made full and read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        give_up("a file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def remount(place, options):
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


@pytest.mark.parametrize("kib", [24, 60, 130])
def test_a_disk_that_is_full(small_disk, undisturbed, kib):
    remount(small_disk, f"size={kib}k")
    done = run(small_disk)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr or " free; make room" in done.stderr
    assert not list(small_disk.rglob("result.h5"))
    for shard in small_disk.rglob("shard-*.h5"):
        assert check_file(shard) == []
    remount(small_disk, "size=4m")
    require_mended(small_disk, undisturbed)


def test_a_directory_that_becomes_read_only(small_disk, undisturbed):
    assert run(small_disk).returncode == 0
    (result,) = small_disk.rglob("result.h5")
    result.unlink()
    sorted(result.parent.glob("shards/*.h5"))[1].unlink()
    remount(small_disk, "ro")
    try:
        done = run(small_disk)
    finally:
        remount(small_disk, "rw")
    assert done.returncode == 1
    assert "cannot be written to; choose another with output_dir=" in done.stderr
    require_mended(small_disk, undisturbed)
