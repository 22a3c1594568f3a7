"""Compressed results: the same numbers, fewer bytes, kept by the run that was begun with them."""

import json
import logging

import h5py
import numpy as np
import pytest
import torch

import pipeline
from pipeline.errors import ConfigurationError, StoreError
from pipeline.job import Storage
from pipeline.store.files import compression as compression_module
from pipeline.store.files.compression import (
    CHUNK,
    chunk_shape,
    creation,
    storage_faults,
    storage_of,
)
from pipeline.store.reading.reader import open_results

POINTS = torch.linspace(-1, 1, 3000, dtype=torch.float64).reshape(1000, 3)


def f(x):
    return torch.sin(x).prod() + (x**3).sum()


def run(place, **keywords):
    with pipeline.run(f, POINTS, "hessian", output_dir=place, shard_rows=400, **keywords) as stored:
        return stored.path, {name: stored[name][:] for name in stored.names}


@pytest.mark.parametrize(("compression", "level"), [("gzip", 9), ("zstd", 3), ("zstd", None)])
def test_the_numbers_are_the_same_in_fewer_bytes(tmp_path, compression, level):
    plain, expected = run(tmp_path / "plain")
    packed, seen = run(tmp_path / "packed", store={"compression": compression, "level": level})
    assert plain.parent.name == packed.parent.name  # the same run: no number depends on it
    for name, values in expected.items():
        assert np.array_equal(seen[name], values), name
    for path in (packed, *(packed.parent / "shards").glob("*.h5")):
        with h5py.File(path) as file:
            assert storage_of(file["hessian"]) == Storage(compression, level or 1)
            assert file["hessian"].chunks[1:] == (3, 3)
    assert pipeline.verify(packed, function=f).faults == ()


def test_a_run_keeps_what_it_was_begun_with(tmp_path, caplog):
    path, _ = run(tmp_path, store={"compression": "gzip"})
    path.unlink()
    sorted((path.parent / "shards").glob("*.h5"))[1].unlink()
    with caplog.at_level(logging.WARNING):
        again, _ = run(tmp_path, store={"level": 3, "compression": "gzip"})
    assert (
        "store={compression: gzip, level: None, symmetric: full, format: auto} and keeps it"
        in caplog.text
    )
    assert json.loads((path.parent / "run.json").read_text())["storage"]["level"] is None
    caplog.clear()
    again.unlink()
    run(tmp_path)
    assert "keeps it" not in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"compression": "zip"},
            "store.compression: expected one of 'none', 'gzip', 'zstd'.*got 'zip'",
        ),
        ({"compresion": "gzip"}, "store.compresion is unknown. Did you mean 'compression'"),
        ({"compression": "gzip", "level": 11}, "store.level: expected 0 to 9 or null.*got 11"),
        ({"level": 1}, "store.level: expected null for compression none, got 1"),
    ],
)
def test_what_cannot_be_written_is_refused(given, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        run(tmp_path, store=given)
    assert list(tmp_path.iterdir()) == []


def test_zeros_take_nearly_nothing_and_are_believed(tmp_path):
    for compression in ("gzip", "zstd"):
        with pipeline.run(
            lambda x: (x * 0).sum(), torch.zeros(60_000, 4, dtype=torch.float64), "hessian",
            output_dir=tmp_path / compression, store={"compression": compression},
        ) as stored:  # fmt: skip
            assert not stored.hessian[:].any()
            assert stored.path.stat().st_size < 200_000


def test_without_the_package_zstd_is_refused(tmp_path, monkeypatch):
    path, _ = run(tmp_path / "a", store={"compression": "zstd"})
    monkeypatch.setattr(compression_module, "has_zstd", lambda: False)
    monkeypatch.setattr("pipeline.store.files.trust.has_zstd", lambda: False)
    with pytest.raises(StoreError, match=r"store.compression: zstd needs the package hdf5plugin"):
        creation((5, 3), 8, Storage("zstd"))
    with pytest.raises(ConfigurationError, match=r"zstd needs the package hdf5plugin: pip install"):
        run(tmp_path / "b", store={"compression": "zstd"})
    with pytest.raises(
        StoreError, match=r"is compressed by zstd, which needs the package hdf5plugin"
    ):
        open_results(path)


@pytest.mark.slow
def test_the_command_line_knows_it(cli, tmp_path):
    done = cli("job=hessian", "grid.count=20", "store=compact")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("result.h5")
    with h5py.File(path) as file:
        assert file["hessian"].compression == "gzip"
    done = cli("job=hessian", "grid.count=20", "store.level=1")
    assert done.returncode == 1
    assert "store.level: expected null" in done.stderr


@pytest.mark.parametrize("itemsize", [1, 4, 8])
@pytest.mark.parametrize("shape", [(7,), (10**6, 3), (10**6, 30, 30), (5, 400, 400), (3, 10**7)])
def test_chunks_are_of_whole_trailing_dimensions(shape, itemsize):
    chunk = chunk_shape(shape, itemsize)
    size = int(np.prod(chunk)) * itemsize
    assert size <= CHUNK
    assert size > CHUNK // 2 or chunk == shape
    cut = [
        axis for axis, (part, whole) in enumerate(zip(chunk, shape, strict=True)) if part < whole
    ]
    assert not cut or all(part == 1 for part in chunk[: cut[-1]])


def test_storage_of_nothing_is_the_default():
    assert Storage.of({}) == Storage()
    assert storage_faults(Storage()) == []
