"""xarray views: names, coordinates, the same values, and nothing read before it is needed."""

import builtins
import importlib
import pickle
import sys

import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stored_runs import LAYOUT, write_run

import pipeline
from pipeline.errors import StoreError
from pipeline.store.files.open_files import Descriptor
from pipeline.store.layout import Layout
from pipeline.store.reading import labelled
from pipeline.store.reading.reader import open_results

AXES = (np.array([0.1, 0.2, 0.7, 1.1]), np.array([-1.0, 2.0, 5.0]), np.array([3.0, 4.0]))
LENGTHS = (4, 3, 2)
KINDS = ("single", "virtual", "chunked")


def on_grid(layout=LAYOUT, axes=AXES):
    """Values of a run whose points are those of the grid."""
    from support.stored_runs import values

    points = np.stack([part.reshape(-1) for part in np.meshgrid(*axes, indexing="ij")], axis=1)
    return values(layout, len(points)) | {"x": points.astype(layout.dtype)}


@pytest.fixture(scope="module", params=KINDS)
def stored(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "run"
    whole = write_run(path, points=24, kind=request.param, axes=AXES, whole=on_grid())
    return open_results(path), whole


def test_a_product_grid_becomes_dimensions_named_after_the_inputs(stored):
    results, whole = stored
    data = results.to_xarray()
    assert data["hessian"].dims == ("a", "b", "c", "output", "input", "input_2")
    assert data["status"].dims == ("a", "b", "c")
    assert "x" not in data
    for name, axis in zip("abc", AXES, strict=True):
        assert np.array_equal(data.coords[name], axis)
        assert data.coords[name].attrs["units"] == "m"
    assert list(data["input"].values) == list(data["input_2"].values) == ["a", "b", "c"]
    assert list(data["output"].values) == ["u", "v"]
    assert data["status"].attrs["flag_meanings"].split()[1] == "ok"
    assert data["status"].attrs["flag_values"][1] == 1
    assert data.attrs["title"] == "a test"
    for name in data:
        expected = whole[name].reshape(*LENGTHS, *whole[name].shape[1:])
        assert np.array_equal(data[name].values, expected)
    entry = data["hessian"].sel(a=0.7, b=2.0, c=4.0, output="v", input="a", input_2="c")
    (row,) = np.flatnonzero((whole["x"] == [0.7, 2.0, 4.0]).all(axis=1))
    assert entry.item() == whole["hessian"][row, 1, 0, 2]


def test_points_stay_points_where_that_is_wanted(stored):
    results, whole = stored
    data = results.to_xarray(grid=False)
    assert data["hessian"].dims == ("point", "output", "input", "input_2")
    assert np.array_equal(data["x"], whole["x"])
    assert "point" not in data.coords
    assert np.array_equal(data["jacobian"].sel(output="u").values, whole["jacobian"][:, 0])


@st.composite
def keys(draw):
    shape = (*LENGTHS, 2, 3, 3)
    return tuple(
        draw(
            st.one_of(
                st.integers(-length, length - 1),
                st.slices(length),
                st.lists(st.integers(-length, length - 1), min_size=1, max_size=3),
            )
        )
        for length in shape
    )


@settings(max_examples=100, deadline=None)
@given(keys(), st.booleans())
def test_lazy_indexing_is_that_of_values_in_memory(stored, key, again):
    results, _ = stored
    lazy = results.to_xarray()["hessian"]
    eager = lazy.compute()
    found, expected = lazy[key], eager[key]
    if again and found.ndim and found.shape[0] > 1:
        found, expected = found[::-1][1:], expected[::-1][1:]
    assert found.identical(expected)
    rows = xarray.DataArray([0, 3, 1], dims="pick")
    pointwise = {"a": rows, "b": rows % 3, "input": rows % 3}
    assert lazy.isel(pointwise).identical(eager.isel(pointwise))


def test_nothing_is_read_before_it_is_needed(stored, monkeypatch):
    results, whole = stored
    read, counts = Descriptor.read, []

    def counted(self, offset, out):
        counts.append(out.nbytes)
        read(self, offset, out)

    monkeypatch.setattr(Descriptor, "read", counted)
    data = results.to_xarray()
    part = data["hessian"].isel(a=1, b=0, c=1)
    assert counts == []
    assert np.array_equal(part.values, whole["hessian"][7])
    assert sum(counts) in (0, 18 * 8)  # HDF5 reads what is compressed


def test_dask_chunks_and_sending(stored):
    results, whole = stored
    data = results.to_xarray(chunks={"a": 2})
    assert data["hessian"].chunks[0] == (2, 2)
    assert np.array_equal(data["value"].values, whole["value"].reshape(4, 3, 2, 2))
    assert np.allclose(data["value"].sum("a"), whole["value"].reshape(4, 3, 2, 2).sum(0))
    sent = pickle.loads(pickle.dumps(results.to_xarray()["hessian"]))
    assert np.array_equal(sent.values.reshape(24, 2, 3, 3), whole["hessian"])


def test_a_dataset_can_be_written_as_netcdf(stored, tmp_path):
    results, whole = stored
    results.to_xarray().to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "copy.nc", engine="h5netcdf") as copy:
        assert np.array_equal(copy["hessian"].values.reshape(24, 2, 3, 3), whole["hessian"])
        assert copy["a"].values.tolist() == AXES[0].tolist()


def test_names_that_are_not_known_or_not_free(tmp_path):
    for names, expected in (
        ((), ["x1", "x2"]), (("t", "t"), ["x1", "x2"]), (("value", "x"), ["value_axis", "x_axis"]),
    ):  # fmt: skip
        layout = Layout(2, (), (("value", 0), ("hessian", 2)), "float32", "t", input_names=names)
        path = tmp_path / "_".join(("run", *names))
        whole = write_run(path, layout, points=12, axes=AXES[:2], whole=on_grid(layout, AXES[:2]))
        data = open_results(path).to_xarray()
        assert list(data["value"].dims) == expected
        first = data.coords[expected[0]]
        assert first.dtype == np.float32  # as the points are: not the axes before rounding
        assert np.array_equal(np.repeat(first.values, 3), whole["x"][:, 0])
        assert list(data["input_2"].values) == (list(names) or [0, 1])


def test_other_grids_have_no_axes(tmp_path):
    write_run(tmp_path / "run")
    results = open_results(tmp_path / "run")
    assert results.to_xarray()["value"].dims == ("point", "output")
    with pytest.raises(
        StoreError, match="the axes of the grid None are not known; leave grid= out"
    ):
        results.to_xarray(grid=True)
    write_run(tmp_path / "wrong", axes=AXES)
    with pytest.raises(StoreError, match=r"axes of \[4, 3, 2\] points do not make 23 points of 3"):
        open_results(tmp_path / "wrong").to_xarray()
    write_run(tmp_path / "fewer", points=12, axes=AXES[:2])
    with pytest.raises(
        StoreError, match=r"\[4, 3\] points do not make 12 points of 3 inputs; give"
    ):
        open_results(tmp_path / "fewer").to_xarray()


def test_an_unfinished_run_can_be_filled(tmp_path):
    whole = write_run(
        tmp_path / "run", points=24, kind="unfinished", drop=(1,), axes=AXES, whole=on_grid()
    )
    results = open_results(tmp_path / "run")
    with pytest.raises(
        StoreError, match="is not finished; run the same command.*fill_missing=True"
    ):
        results.to_xarray()
    data = results.to_xarray(fill_missing=True)
    flat = data["hessian"].values.reshape(24, 2, 3, 3)
    assert np.isnan(flat[5:10]).all()
    assert np.array_equal(
        np.delete(flat, range(5, 10), 0), np.delete(whole["hessian"], range(5, 10), 0)
    )
    assert (data["status"].values.reshape(-1)[5:10] == 0).all()
    assert np.isnan(data["value"].isel(a=1, b=0, c=0)).all()


def test_what_is_not_installed_is_named(stored, monkeypatch):
    results, _ = stored
    importing = builtins.__import__

    def refuse(name, *rest):
        if name.split(".")[0] in ("dask", "xarray"):
            raise ImportError(f"No module named {name!r}")
        return importing(name, *rest)

    monkeypatch.setattr(xarray.Dataset, "chunk", lambda *_: refuse("dask"))
    with pytest.raises(StoreError, match=r"chunks= needs dask .*pip install dask"):
        results.to_xarray(chunks="auto")
    monkeypatch.setattr(builtins, "__import__", refuse)
    for name in (labelled.__name__, "pipeline.store.sweeps.join"):
        monkeypatch.delitem(sys.modules, labelled.__name__, raising=False)
        monkeypatch.delitem(sys.modules, name, raising=False)
        with pytest.raises(
            StoreError, match=r"xarray is needed.*pip install 'pipeline-derivatives\[xarray\]'"
        ):
            importlib.import_module(name)


def test_columns_without_names_keep_their_numbers(tmp_path):
    points = torch.rand(3, 3).double()
    with pipeline.run(cubes, points, "gradient", wrt=[0, 2], output_dir=tmp_path) as results:
        assert results.to_xarray()["variable"].values.tolist() == ["x[0]", "x[2]"]


def cubes(x):
    return (x**3).sum()
