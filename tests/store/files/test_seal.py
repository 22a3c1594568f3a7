"""The seal: every byte that HDF5 trusts is looked at before HDF5 is asked."""

import os
import random
import shutil
import struct
import zlib

import h5py
import numpy as np
import pytest
from support.sealing import reseal
from support.stored_runs import LAYOUT, write_run

from pipeline.errors import StoreError
from pipeline.job import Storage
from pipeline.results.__main__ import main as results_main
from pipeline.store.files.seal import Seal, require_seal
from pipeline.store.reading.reader import open_results


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same run in one file and in shards."""
    place = tmp_path_factory.mktemp("written")
    whole = {kind: write_run(place / kind, kind=kind) for kind in ("single", "virtual")}
    return place, whole["single"]


def by_hand(path):
    """Whether a seal is right, from its description in docs/file-format.md alone."""
    content = path.read_bytes()
    size, count, crc32, own, magic = struct.unpack("<QQII8s", content[-32:])
    ranges = [struct.unpack_from("<QQ", content, size + 16 * k) for k in range(count)]
    others, done = b"", 0
    for offset, length in ranges:
        others, done = others + content[done:offset], offset + length
    others += content[done:size]
    right = (magic, own, crc32, size + 16 * count + 32) == (
        b"PDSEAL1\n", zlib.crc32(content[size:-12]), zlib.crc32(others), len(content),
    )  # fmt: skip
    return right, ranges


@pytest.mark.parametrize(
    "name", ["single/result.h5", "virtual/result.h5", "virtual/shards/shard-00002.h5"]
)
def test_it_is_what_the_documentation_says(written, name):
    place, whole = written
    right, ranges = by_hand(place / name)
    assert right
    with h5py.File(place / name) as file:
        rows = sum(0 if file[each].is_virtual else file[each].nbytes for each in whole)
    assert sum(length for _, length in ranges) == rows
    assert bool(ranges) == (name != "virtual/result.h5")


def test_no_byte_outside_the_rows_can_change(written, tmp_path):
    path = shutil.copy(written[0] / "single" / "result.h5", tmp_path / "a.h5")
    content = path.read_bytes()
    _, ranges = by_hand(path)
    generator = random.Random(0)
    tail = range(len(content) - 100, len(content))
    for position in [*range(64), *tail, *generator.sample(range(len(content)), 300)]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        if any(offset <= position < offset + length for offset, length in ranges):
            require_seal(path)
            continue
        with pytest.raises(StoreError, match="a.h5 (has no seal|is damaged: its seal is broken)"):
            require_seal(path)


def test_what_was_edited_is_opened_where_it_is_asked_for(written, tmp_path):
    path = shutil.copy(written[0] / "single" / "result.h5", tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["hessian"].attrs["remark"] = "ours"
    with pytest.raises(StoreError, match=r"a.h5 has no seal.*open_results\(path, edited=True\)"):
        open_results(path)
    with open_results(path, edited=True) as results:
        assert results.edited
        assert results.hessian.attrs["remark"] == "ours"
        assert np.array_equal(results.hessian[:], written[1]["hessian"])
        assert results.certificate["route"] == "loop"
    reseal(path)
    with open_results(path) as results:
        assert not results.edited


def test_a_shard_that_was_edited_is_found_when_it_is_read(written, tmp_path):
    run = shutil.copytree(written[0] / "virtual", tmp_path / "run")
    with h5py.File(run / "shards" / "shard-00001.h5", "r+") as file:
        file.attrs["remark"] = "ours"
    with open_results(run) as results:
        assert np.array_equal(results.x[:5], written[1]["x"][:5])
        with pytest.raises(StoreError, match="shard-00001.h5 has no seal"):
            results.x[:]
    with open_results(run, edited=True) as results:
        assert np.array_equal(results.x[:], written[1]["x"])


def test_compressed_rows_are_left_to_their_checksums(tmp_path):
    from dataclasses import replace

    write_run(tmp_path, replace(LAYOUT, storage=Storage("gzip")), 4000, 4000, "single")
    path = tmp_path / "result.h5"
    right, ranges = by_hand(path)
    assert right
    with h5py.File(path) as file:
        stored = sum(
            file[name].id.get_storage_size()
            for name in ("x", "value", "jacobian", "hessian", "status")
        )
    assert sum(length for _, length in ranges) == stored
    assert path.stat().st_size - stored < 100_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PDSEAL1\n",
        bytes(200),
        bytes(50) + Seal(50, [(0, 1 << 63)], 0).pack(),
        bytes(50) + Seal(50, [(1 << 63, 1 << 63), (0, 10)], 0).pack(),
        bytes(50) + Seal(1 << 63, [], 0).pack(),
        bytes(50) + Seal(50, [], zlib.crc32(bytes(49))).pack(),
    ],
)
def test_a_seal_that_makes_no_sense(tmp_path, content):
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(
        StoreError, match="a.h5 (has no seal|is no HDF5|is damaged|cannot be opened)"
    ):
        open_results(path)


def test_a_disk_that_fails(written, monkeypatch):
    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(StoreError, match="result.h5 cannot be opened: .*Input/output error"):
        open_results(written[0] / "single")


def test_commands_open_what_was_edited_only_when_told(written, tmp_path, capsys):
    run = shutil.copytree(written[0] / "virtual", tmp_path / "run")
    with h5py.File(run / "shards" / "shard-00001.h5", "r+") as file:
        file.attrs["remark"] = "ours"
    command = ["consolidate", str(run), str(tmp_path / "one.h5")]
    assert results_main(command) == 1
    assert "shard-00001.h5 has no seal" in capsys.readouterr().err
    assert results_main([*command, "--edited", "--compression", "gzip"]) == 0
    with open_results(tmp_path / "one.h5") as results:  # sealed again
        assert np.array_equal(results.hessian[:], written[1]["hessian"])
    with h5py.File(tmp_path / "one.h5") as file:
        assert file["hessian"].compression == "gzip"


def test_a_level_of_no_compression(written, tmp_path, capsys):
    command = ["consolidate", str(written[0] / "virtual"), str(tmp_path / "one.h5"), "--level", "3"]
    assert results_main(command) == 1
    assert (
        "--level: expected --compression beside it, got --level 3 alone" in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []
