"""A reader written from the page about the file alone gives what `open_results` gives."""

import itertools
import zlib

import h5py
import numpy as np
import pytest

import pipeline
from pipeline.grids.kind import Space
from pipeline.registry import build_registry


def names_of(file, dataset):
    return [file[axis[0]].name.removeprefix("/") for axis in dataset.attrs["DIMENSION_LIST"]]


def unpacked(values, places, n, order):
    """Step 5: every value at its place, and at every permutation of its indices."""
    whole = np.empty((*values.shape[:-1], *(n,) * order))
    indices = np.unravel_index(places, (n,) * order)
    for axes in itertools.permutations(indices):
        whole[(..., *axes)] = values
    return whole


def read(path):
    with h5py.File(path, "r") as file:
        assert file.attrs["schema"] == "pipeline-derivatives/1"
        count, n = int(file.attrs["stop"] - file.attrs["start"]), len(file["input"])
        assert not file["status"].is_virtual
        found = {}
        for name, stored in file.items():
            dims = (
                names_of(file, stored)
                if "DIMENSION_LIST" in getattr(stored, "attrs", ())
                else [None]
            )
            if dims[0] != "point":
                continue
            values = stored[()]
            assert len(values) == count
            digest = f"crc32:{zlib.crc32(np.ascontiguousarray(values, values.dtype.newbyteorder('<'))):08x}"
            assert file["checksums"][name][()].decode() == digest
            if stored.attrs.get("layout") == "packed":
                order = int(dims[-1].removeprefix("packed_"))
                values = unpacked(values, file[dims[-1]][()], n, order)
            if stored.attrs.get("layout") == "sparse":
                whole = np.zeros((count, *file["sparsity"]["shape"][()]))
                whole.reshape(count, -1)[:, file[dims[-1]][()]] = values
                values = whole
            found[name.removesuffix("_packed").removesuffix("_sparse")] = values
        axes = [entry[()] for name, entry in file["grid"].items() if name.startswith("axis_")]
    return found, axes


@pytest.mark.parametrize("symmetric", ["full", "packed"])
@pytest.mark.parametrize("function", ["rosenbrock", "weighted_squares"])
def test_a_reader_from_the_page(function, symmetric, tmp_path):
    grid = build_registry().grid("linspace").build(Space(3, -1.0, 2.0), count=[2, 3, 4])
    operators = ["value", "hessian", "derivative"]
    store = {"symmetric": symmetric}
    results = pipeline.run(function, grid, operators, order=3, store=store, output_dir=tmp_path)
    with results:
        found, axes = read(results.account)
        assert set(found) == {"x", "status", "value", "hessian", "derivative_3"}
        for name, values in found.items():
            assert np.array_equal(values, results[name][:]), name
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    assert np.array_equal(points, found["x"])


@pytest.mark.parametrize(
    ("function", "operator"), [("rosenbrock", "hessian"), ("weighted_squares", "jacobian")]
)
def test_a_reader_of_sparse_results_from_the_page(function, operator, tmp_path):
    grid = build_registry().grid("random").build(Space(4, -1.0, 2.0), count=5)
    with pipeline.run(
        function, grid, operator, store={"format": "sparse"}, output_dir=tmp_path
    ) as results:
        found, _ = read(results.account)
        assert np.array_equal(found[operator], results[operator][:])
        assert 0 < results.sparse(operator).nnz < results[operator][0].size
