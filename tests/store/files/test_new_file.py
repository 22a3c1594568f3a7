"""Files that are being written: a disk that fails at any moment gives one error, and HDF5 never sees it."""

import errno
import os

import h5py
import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.job import Storage
from pipeline.store.files import new_file as new_file_module
from pipeline.store.files.new_file import Disk, new_file
from pipeline.store.layout import Dataset

ROWS, PLAIN, PACKED = 6000, Storage(), Storage("gzip")
H = Dataset("h", (3, 3), np.dtype("f8"), ("point", "a", "b"), {})
FLAG = Dataset("flag", (), np.dtype("u1"), ("point",), {})
VALUES = {
    "h": np.random.default_rng(0).standard_normal((ROWS, 3, 3)),
    "flag": np.arange(ROWS).astype("u1"),
}


def write(path, storage=PLAIN, texts=40):
    with new_file(path) as new:
        for dataset in (H, FLAG):
            new.create(dataset, ROWS, storage)
        for row in range(0, ROWS, 1000):
            for name, values in VALUES.items():
                new.write(name, row, values[row : row + 1000])
        for number in range(texts):  # enough for HDF5 to write in between
            new.file.create_dataset(f"text_{number}", data="x" * 9000, dtype=h5py.string_dtype())


class Failing:
    """Calls of os that fail from some moment on."""

    def __init__(self, monkeypatch, at, number):
        self.calls, self.at, self.number = 0, at, number
        for name in ("pwrite", "ftruncate"):
            monkeypatch.setattr(new_file_module.os, name, self.guarded(getattr(os, name)))

    def guarded(self, real):
        def call(*arguments):
            self.calls += 1
            if self.calls > self.at:
                raise OSError(self.number, os.strerror(self.number))
            return real(*arguments)

        return call


@pytest.mark.parametrize("moments", [12, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "storage", [PLAIN, PACKED, pytest.param(Storage("zstd"), marks=pytest.mark.slow)], ids=str
)
def test_a_disk_that_fails_at_any_call(tmp_path, monkeypatch, storage, moments):
    with monkeypatch.context() as patched:
        counter = Failing(patched, 10**9, 0)
        write(tmp_path / "whole.h5", storage)
    assert counter.calls > 50
    for at in range(0, counter.calls, max(counter.calls // moments, 1)):
        with monkeypatch.context() as patched:
            Failing(patched, at, errno.ENOSPC)
            with pytest.raises(StoreError, match="cannot write .*No space left on device"):
                write(tmp_path / "new.h5", storage)
        assert [path.name for path in tmp_path.iterdir()] == ["whole.h5"]
    write(tmp_path / "new.h5", storage)  # HDF5 is as well as before
    with h5py.File(tmp_path / "new.h5") as one, h5py.File(tmp_path / "whole.h5") as other:
        for name, values in VALUES.items():
            assert np.array_equal(one[name][()], values)
            assert np.array_equal(other[name][()], values)


def fail_and_stumble(path, monkeypatch):
    with new_file(path) as new:
        new.create(H, ROWS, PACKED)
        Failing(monkeypatch, 0, errno.EIO)
        with pytest.raises(OSError, match="Input/output error"):
            new.write("h", 0, VALUES["h"])
        raise KeyError("something that comes of it")


def test_an_error_of_the_disk_is_not_hidden_by_what_it_causes(tmp_path, monkeypatch):
    with pytest.raises(StoreError, match="Input/output error"):
        fail_and_stumble(tmp_path / "a.h5", monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_never_reaches_hdf5(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(new_file_module.os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.h5", PACKED)
    assert list(tmp_path.iterdir()) == []


def test_what_hdf5_reads_back(tmp_path, monkeypatch):
    with Disk(tmp_path / "a") as disk:
        disk.put(0, memoryview(b"abcdef"))
        disk.seek(2)
        buffer = bytearray(8)
        disk.readinto(buffer)
        assert bytes(buffer) == b"cdef\0\0\0\0"
        assert disk.tell() == 10
        disk.require_well()

        def failing(*_):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(new_file_module.os, "pread", failing)
        disk.seek(0)
        disk.readinto(buffer)
        assert bytes(buffer) == bytes(8)
        with pytest.raises(OSError, match="Input/output error"):
            disk.require_well()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((5, 3), "f8"), r"h: expected rows of float64 \(3, 3\), got float64 \(3,\)"),
        (np.zeros((5, 3, 3), "f4"), r"h: expected rows of float64 \(3, 3\), got float32 \(3, 3\)"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, monkeypatch, values, message):
    monkeypatch.setitem(VALUES, "h", values)
    with pytest.raises(StoreError, match=message):
        write(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_rows_lie_on_pages_of_their_own(tmp_path):
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["h"].id.get_offset() % 4096 == 0
        assert file["h"].chunks is None
        mapped = np.memmap(tmp_path / "a.h5", "f8", "r", file["h"].id.get_offset(), (ROWS, 3, 3))
    assert np.array_equal(mapped, VALUES["h"])
