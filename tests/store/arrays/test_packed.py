"""Symmetric datasets without their repetitions on disk, whole for whoever reads them."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.sealing import resealed
from support.stored_runs import LAYOUT, write_run

import pipeline
from pipeline.errors import StoreError
from pipeline.job import Storage
from pipeline.store.export.consolidate import consolidate
from pipeline.store.packed import places
from pipeline.store.reading.reader import open_results

SHAPE = (23, 2, 3, 3, 3)
PACKED = replace(
    LAYOUT,
    operators=(("jacobian", 1), ("hessian", 2), ("derivative_3", 3)),
    storage=Storage(symmetric="packed"),
)


@pytest.fixture(scope="module", params=["single", "virtual", "chunked"])
def stored(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "run"
    values = write_run(path, PACKED, kind=request.param)
    whole = values["derivative_3_packed"][..., places(3, 3)].reshape(SHAPE)
    with open_results(path) as results:
        yield results, values, whole


def indices():
    return st.one_of(
        hnp.basic_indices(SHAPE, allow_newaxis=True),
        hnp.integer_array_indices(SHAPE),
        st.tuples(*(st.slices(length) for length in SHAPE)),
        st.lists(st.integers(-23, 22), max_size=5),
    )


@settings(max_examples=150, deadline=None)
@given(indices())
def test_every_index_gives_what_numpy_gives(stored, index):
    results, _, whole = stored
    found, expected = results.derivative_3[index], whole[index]
    assert type(found) is type(expected)
    assert np.array_equal(found, expected)


def test_the_names_and_what_is_stored(stored):
    results, values, whole = stored
    assert set(results.names) == {"x", "jacobian", "hessian", "derivative_3", "status"}
    assert set(results.stored) == {*values}
    assert results.hessian.dims == ("point", "output", "input", "input_2")
    assert results.hessian.attrs["layout"] == "dense"
    assert results.hessian_packed.attrs["layout"] == "packed"
    assert results.hessian.row_bytes == 2 * 9 * 8
    assert np.array_equal(np.asarray(results.derivative_3), whole)
    assert np.array_equal(results.hessian_packed[:], values["hessian_packed"])
    assert {"hessian", "hessian_packed"} <= set(dir(results))


def test_reading_into_buffers(stored):
    results, _, whole = stored
    out = torch.empty(9, *SHAPE[1:], dtype=torch.float64)
    assert results.derivative_3.read(4, 13, out) is out
    assert np.array_equal(out.numpy(), whole[4:13])
    batches = list(results.batches(10, ["derivative_3"]))
    assert np.array_equal(np.concatenate([b["derivative_3"] for b in batches]), whole)
    with pytest.raises(StoreError, match="expected 0 <= start <= stop <= 23, got 20, 30"):
        results.derivative_3.read(20, 30)


def test_xarray_and_consolidation(stored, tmp_path):
    results, values, whole = stored
    data = results.to_xarray(grid=False)
    assert data["derivative_3"].dims == ("point", "output", "input", "input_2", "input_3")
    assert np.array_equal(data["derivative_3"][3:9, 1].values, whole[3:9, 1])
    consolidate(results, tmp_path / "one.h5")
    with open_results(tmp_path / "one.h5") as one:
        assert np.array_equal(one.derivative_3[:], whole)
        assert np.array_equal(one.hessian_packed[:], values["hessian_packed"])


def test_other_readers_find_where_the_entries_lie(stored):
    results, values, _ = stored
    with h5py.File(results.path) as file:  # as docs/file-format.md says
        n, packed = len(file["input"]), file["hessian_packed"][()][:, 0]
        i, j = np.divmod(file["packed_2"][()], n)
        hessian = np.empty((len(packed), n, n))
        hessian[:, i, j] = hessian[:, j, i] = packed
        assert file["packed_2"].attrs["compress"] == "input input_2"
    assert np.array_equal(hessian, results.hessian[:, 0])
    with xarray.open_dataset(results.path, engine="h5netcdf") as data:
        assert data["derivative_3_packed"].dims == ("point", "output", "packed_3")
        assert np.array_equal(data["derivative_3_packed"], values["derivative_3_packed"])


@pytest.mark.parametrize("fault", ["order", "size"])
def test_another_order_of_the_entries_is_refused(fault, tmp_path):
    write_run(tmp_path / "run", PACKED, kind="single")
    with resealed(tmp_path / "run" / "result.h5") as file:
        if fault == "order":
            file["packed_2"][1] = 3
        else:
            file["hessian_packed"].attrs["symmetric"] = "input input_2 input_3"
    with pytest.raises(StoreError, match="hessian_packed does not hold the distinct entries of in"):
        open_results(tmp_path / "run")


def energy(x):
    return torch.sin(x[0]) * torch.exp(x[1]) + (x**3).sum() * x[2]


def test_a_run_from_shard_to_verification(tmp_path):
    points = torch.linspace(0.5, 1.5, 120, dtype=torch.float64).reshape(40, 3)
    keywords = {"output_dir": tmp_path, "shard_rows": 15}
    with pipeline.run(energy, points, ["value", "hessian"], **keywords) as full:
        expected, identity = full.hessian[:], full.path.parent.name
    with pipeline.run(
        energy, points, ["value", "hessian"], symmetric="packed", **keywords
    ) as packed:
        path = packed.path
        assert path.parent.name != identity  # what is stored differs
        assert packed.stored == ("hessian_packed", "status", "value", "x")
        np.testing.assert_allclose(packed.hessian[:], expected, rtol=1e-13, atol=1e-15)
    assert json.loads((path.parent / "run.json").read_text())["identity"]["symmetric"] == "packed"
    assert pipeline.verify(path, function=energy).faults == ()
    (path.parent / "shards" / "shard-00001.h5").unlink()
    path.unlink()
    store = {"symmetric": "packed", "compression": "gzip"}
    with pipeline.run(energy, points, ["value", "hessian"], store=store, **keywords) as again:
        assert again.path == path
        np.testing.assert_allclose(again.hessian[:], expected, rtol=1e-13, atol=1e-15)
    with pipeline.run(energy, points, "gradient", output_dir=tmp_path) as first:
        plain = first.path
    with pipeline.run(energy, points, "gradient", output_dir=tmp_path, symmetric="packed") as same:
        assert same.path == plain  # nothing in it is symmetric


@pytest.mark.slow
def test_the_command_line(cli, tmp_path):
    done = cli("job=hessian", "grid.count=4", "store.symmetric=packed", "output_dir=o")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "o").glob("*/*/*/result.h5")
    with open_results(path) as results:
        a, b = results.x[:].T
        assert np.allclose(results.hessian_packed[:, 0], 1200 * a**2 - 400 * b + 2)
    show = cli("show", str(path), module="pipeline.results")
    assert "(16, 2, 2) float64" in show.stdout
    assert "(stored packed)" in show.stdout
    wrong = cli("job=hessian", "store.symmetric=half")
    assert wrong.returncode != 0
    assert "store.symmetric: expected one of 'full', 'packed'" in wrong.stderr + wrong.stdout


def test_some_columns_of_the_points(tmp_path):
    points = torch.linspace(0.5, 1.5, 120, dtype=torch.float64).reshape(40, 3)
    keywords = {"output_dir": tmp_path, "wrt": [0, 2]}
    with (
        pipeline.run(energy, points, "hessian", symmetric="packed", **keywords) as packed,
        pipeline.run(energy, points, "hessian", **keywords) as full,
    ):
        assert packed.hessian_packed.shape == (40, 3)
        assert packed.hessian.dims == ("point", "variable", "variable_2")
        np.testing.assert_allclose(packed.hessian[:], full.hessian[:], rtol=1e-13, atol=1e-15)
