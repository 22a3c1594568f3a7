"""One file of many: every byte is compared with its checksum on its way."""

import errno
import os
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sealing import resealed
from support.stored_runs import LAYOUT, write_run

from pipeline.errors import StoreError
from pipeline.job import Storage
from pipeline.store.export import consolidate as module
from pipeline.store.export.consolidate import consolidate
from pipeline.store.export.integrity import check_file
from pipeline.store.files.checksum import joined_crc32
from pipeline.store.layout import Pattern
from pipeline.store.reading.reader import open_results


@given(st.lists(st.binary(max_size=300)))
def test_the_checksum_of_pieces_is_that_of_the_whole(pieces):
    found = 0
    for piece in pieces:
        found = joined_crc32(found, zlib.crc32(piece), len(piece))
    assert found == zlib.crc32(b"".join(pieces))


def test_a_piece_may_be_long():
    head, tail = b"derivatives", bytes(10_000_019)
    assert joined_crc32(zlib.crc32(head), zlib.crc32(tail), len(tail)) == zlib.crc32(head + tail)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 100)  # several per dataset and shard
    monkeypatch.setattr(module, "SETTLED", 500)
    monkeypatch.setattr(module, "THREADS", 3)


@pytest.mark.parametrize("kind", ["single", "virtual", "chunked"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_all_is_copied_and_its_checksums_are_right(kind, compression, small_pieces, tmp_path):
    whole = write_run(tmp_path / "run", kind=kind)
    target = tmp_path / "one.h5"
    with open_results(tmp_path / "run") as results:
        consolidate(results, target, Storage(compression))
    assert check_file(target) == []  # reads it again, by HDF5, and sums it in one go
    with open_results(target) as one:
        for name, expected in whole.items():
            assert np.array_equal(one[name][:], expected)


def test_two_consolidations_to_one_target(tmp_path, monkeypatch):
    """One is finished while the other one copies: that is told, and what is there stays."""
    target, copies = tmp_path / "one.h5", module._copy_structure
    first = write_run(tmp_path / "first", points=17)
    write_run(tmp_path / "second")

    def meanwhile(*arguments):
        monkeypatch.setattr(module, "_copy_structure", copies)
        with open_results(tmp_path / "first") as results:
            consolidate(results, target)
        copies(*arguments)

    monkeypatch.setattr(module, "_copy_structure", meanwhile)
    with (
        open_results(tmp_path / "second") as results,
        pytest.raises(
            StoreError, match="one.h5 is in the way: somebody else has written it meanwhile"
        ),
    ):
        consolidate(results, target)
    with open_results(target) as one:
        assert np.array_equal(one.x[:], first["x"])
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_matrix_without_entries(small_pieces, tmp_path):
    pattern = Pattern(1, (2, 3), np.empty(0, np.int64))
    layout = replace(LAYOUT, operators=(("jacobian", 1),), pattern=pattern)
    write_run(tmp_path / "run", layout)
    with open_results(tmp_path / "run") as results:
        consolidate(results, tmp_path / "one.h5")
    with open_results(tmp_path / "one.h5") as one:
        assert not one.jacobian[:].any()
        assert one.jacobian.shape == (23, 2, 3)


@pytest.mark.parametrize("name", ["x", "value", "jacobian", "hessian", "status"])
@pytest.mark.parametrize("row", [5, 9])
def test_a_changed_byte_anywhere_is_found(name, row, small_pieces, tmp_path):
    write_run(tmp_path / "run")
    with resealed(tmp_path / "run" / "shards" / "shard-00001.h5") as file:
        rows = file[name][()]
        rows.view("u1").reshape(len(rows), -1)[row - 5, -1] ^= 1
        file[name][...] = rows
    text = (
        f"shard-00001.h5: {name} has changed: expected crc32:.*what is consolidated has to be sound"
    )
    with (
        open_results(tmp_path / "run") as results,
        pytest.raises(StoreError, match=text),
    ):
        consolidate(results, tmp_path / "one.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("reader", "settling"))]


def test_a_dataset_without_a_checksum_is_not_copied_unseen(tmp_path):
    whole = write_run(tmp_path / "run")
    with resealed(tmp_path / "run" / "shards" / "shard-00002.h5") as file:
        del file["checksums/value"]
    text = "shard-00002.h5: expected one checksum for each of .*value.*, got hessian, jacobian, status, x"
    with open_results(tmp_path / "run") as results, pytest.raises(StoreError, match=text):
        consolidate(results, tmp_path / "one.h5")
    with open_results(
        tmp_path / "run", edited=True
    ) as results:  # whoever edits it may leave it out
        consolidate(results, tmp_path / "one.h5")
    with open_results(tmp_path / "one.h5") as one:
        assert np.array_equal(one.value[:], whole["value"])


def test_a_disk_that_fails_while_more_is_copied(small_pieces, tmp_path, monkeypatch):
    """An error of writing is told once by the kernel, to whoever syncs first."""
    write_run(tmp_path / "run")
    sync, calls = os.fsync, []

    def fail_once(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    text = "cannot write .*one.h5: .*Input/output error"
    with open_results(tmp_path / "run") as results, pytest.raises(StoreError, match=text):
        consolidate(results, tmp_path / "one.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
