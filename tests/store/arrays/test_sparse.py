"""Sparse results on disk: what is stored, who can read it, and what is refused."""

import json

import h5py
import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pipeline
from pipeline.errors import ConfigurationError, StoreError
from pipeline.results.account import facts
from pipeline.results.verification import verify
from pipeline.store.export.consolidate import consolidate
from pipeline.store.export.formats import export
from pipeline.store.reading.reader import open_results
from pipeline.store.writing import assembly as assembling

N, M, POINTS = 14, 9, 23


def residual(u):
    left, right = torch.nn.functional.pad(u[:-1], (1, 0)), torch.nn.functional.pad(u[1:], (0, 1))
    return (0.1 * (right - 2 * u + left) - u * (right - left) / 2)[:M]


def chain(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


X = torch.rand((POINTS, N), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
WHOLE = pipeline.evaluate(residual, X, "jacobian", route="loop").jacobian.numpy()


def run(folder, f=residual, operators=("value", "jacobian"), form="sparse", **more):
    store = {"format": form, **more.pop("store", {})}
    return pipeline.run(f, X, operators, output_dir=folder, store=store, shard_rows=8, **more)


@pytest.fixture(scope="module", params=["single", "virtual", "compressed"])
def stored(request, tmp_path_factory):
    store = {"compression": "gzip"} if request.param == "compressed" else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembling, "SMALL", 0 if request.param == "virtual" else 1 << 30)
        with run(tmp_path_factory.mktemp(request.param), store=store) as results:
            yield results


def test_the_account_says_what_the_entries_are_of(stored):
    about = facts(stored)["datasets"]["jacobian_sparse"]["about"]
    assert about.endswith(f"(entries of {M} × {N} matrices)")


def test_names_shapes_and_attributes(stored):
    assert set(stored.names) == {"x", "value", "jacobian_sparse", "status"} == set(stored.stored)
    assert stored.jacobian_sparse.shape == (POINTS, 26)
    assert stored.jacobian_sparse.dims == ("point", "sparse_1")
    assert stored.jacobian_sparse.attrs["layout"] == "sparse"
    assert stored.jacobian.shape == (POINTS, M, N)
    assert stored.jacobian.dims == ("point", "output", "input")
    assert stored.names_along("sparse_1")[:3] == ["0,0", "0,1", "1,0"]


def test_values_are_those_of_the_dense_reference(stored):
    np.testing.assert_allclose(stored.jacobian[:], WHOLE, rtol=1e-12, atol=1e-12)
    rows = stored.sparse("jacobian")
    assert rows.shape == (POINTS, M, N)
    np.testing.assert_allclose(rows[10].toarray(), WHOLE[10], rtol=1e-12, atol=1e-12)
    assert [each.nnz for each in rows[2:4]] == [26, 26]
    np.testing.assert_allclose(rows.to_torch(4).to_dense(), WHOLE[4], rtol=1e-12, atol=1e-12)
    batch = rows.to_torch(slice(6, 10))
    assert batch.layout == torch.sparse_csr
    np.testing.assert_allclose(batch.to_dense(), WHOLE[6:10], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(rows.to_dense(slice(7, 9)), WHOLE[7:9], rtol=1e-12, atol=1e-12)


SHAPE = (POINTS, M, N)


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        hnp.basic_indices(SHAPE, allow_newaxis=True),
        hnp.integer_array_indices(SHAPE),
        st.tuples(*(st.slices(length) for length in SHAPE)),
    )
)
def test_every_index_gives_what_numpy_gives(stored, index):
    np.testing.assert_allclose(stored.jacobian[index], WHOLE[index], rtol=1e-12, atol=1e-12)


def test_batches_carry_the_values(stored):
    batches = list(stored.batches(10))
    assert [batch["jacobian_sparse"].shape for batch in batches] == [(10, 26), (10, 26), (3, 26)]
    out = torch.empty(5, M, N, dtype=torch.float64)
    assert stored.jacobian.read(3, 8, out) is out
    np.testing.assert_allclose(out, WHOLE[3:8], rtol=1e-12, atol=1e-12)


def test_xarray_users_find_row_and_column(stored):
    with stored.to_xarray() as data:
        dense = np.zeros((M, N))
        dense[data["row"], data["column"]] = data["jacobian_sparse"].isel(point=5)
        np.testing.assert_allclose(dense, WHOLE[5], rtol=1e-12, atol=1e-12)


def test_other_readers_find_named_components(stored):
    with h5py.File(stored.path) as file:
        csr, values = file["sparsity"], file["jacobian_sparse"][3]
        rows = np.repeat(np.arange(M), np.diff(csr["indptr"][()]))
        dense = np.zeros(csr["shape"][()])
        dense[rows, csr["indices"][()]] = values
        np.testing.assert_allclose(dense, WHOLE[3], rtol=1e-12, atol=1e-12)
        assert file["sparse_1"].attrs["compress"] == "output input"
    with xarray.open_dataset(stored.path, engine="h5netcdf") as data:
        assert data["jacobian_sparse"].dims == ("point", "sparse_1")
        where = np.unravel_index(data["sparse_1"], (M, N))
        np.testing.assert_allclose(
            data["jacobian_sparse"][3], WHOLE[3][where], rtol=1e-12, atol=1e-12
        )


def test_the_command_compares_it_again(stored):
    found = verify(stored.path, function=residual)
    assert found.faults == ()
    assert any("jacobian: largest error" in fact for fact in found.facts)


def test_consolidated_and_exported(stored, tmp_path):
    consolidate(stored, tmp_path / "one.h5")
    with open_results(tmp_path / "one.h5") as one:
        np.testing.assert_array_equal(one.jacobian[:], stored.jacobian[:])
    export(stored, tmp_path / "some.csv", "csv", ["jacobian_sparse"], "0,1")
    head = (tmp_path / "some.csv").read_text().splitlines()[0]
    assert "jacobian_sparse[0,0]" in head


def test_hessians_are_named_by_their_axes(tmp_path):
    with run(tmp_path, chain, ("gradient", "hessian")) as results:
        whole = pipeline.evaluate(chain, X, route="loop").hessian.numpy()
        np.testing.assert_allclose(results.hessian[:], whole, rtol=1e-12, atol=1e-11)
        assert results.hessian.dims == ("point", "input", "input_2")
        assert results.gradient.shape == (POINTS, N)
        packed = {"symmetric": "packed"}  # has nothing to do where entries of a pattern are kept
        assert "hessian_sparse" in run(tmp_path, chain, ("hessian",), store=packed).names


def test_the_same_command_finds_what_is_there_and_dense_is_another_run(tmp_path):
    first, again = run(tmp_path), run(tmp_path)
    dense, unasked = run(tmp_path, form="dense"), run(tmp_path, form="auto")
    assert first.path == again.path
    assert dense.path == unasked.path != first.path  # too small for zeros to be looked for
    assert "jacobian_sparse" not in dense.names
    identity = json.loads(first.provenance["identity_json"])
    assert identity["format"] == "sparse"
    assert "format" not in json.loads(dense.provenance["identity_json"])
    with pytest.raises(StoreError, match="'jacobian' is not sparse; read results\\['jacobian'\\]"):
        dense.sparse("jacobian")


def test_large_sparse_results_are_stored_sparse_unasked(tmp_path):
    points = torch.rand(3, 150).double()
    results = pipeline.run(chain, points, output_dir=tmp_path)
    assert results.sparse("hessian").nnz == 3 * 150 - 2
    assert "Hessian" not in results.names


def test_a_broken_off_run_goes_on(tmp_path):
    with run(tmp_path) as whole:
        place, values = whole.path.parent, whole.jacobian_sparse[:]
    (place / "result.h5").unlink()
    shards = sorted((place / "shards").glob("*.h5"))
    if not shards:
        pytest.skip("shards of small results are tidied away")
    shards[1].unlink()
    with run(tmp_path) as again:
        np.testing.assert_array_equal(again.jacobian_sparse[:], values)


def test_points_that_are_not_finite_are_flagged(tmp_path):
    points = X.clone()
    points[4, 3] = 0.0
    store = {"format": "sparse"}
    results = pipeline.run(
        lambda u: 1 / u[:M], points, "jacobian", output_dir=tmp_path, store=store
    )
    assert results.status[:].tolist() == [1, 1, 1, 1, 2, *[1] * (POINTS - 5)]
    assert np.isinf(results.jacobian_sparse[4]).sum() == 1
    assert results.sparse("jacobian").nnz == M


@pytest.mark.slow
def test_a_first_point_that_raises_costs_nothing_but_itself(tmp_path):
    def fragile(x):
        if torch.equal(x, X[0]):
            raise ValueError("not here")
        return residual(x)

    with pytest.raises(ConfigurationError, match="no pattern is found"):
        run(tmp_path, fragile, ("jacobian",))
    points = torch.rand(4, 150).double()
    points[0] = -1

    def negative(x):
        if x.detach().clone().lt(0).all():
            raise ValueError("not here")
        return chain(x)

    results = pipeline.run(negative, points, output_dir=tmp_path)
    assert results.status[:].tolist() == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file["sparse_1"].__setitem__(0, 5), "does not hold ascending entries"),
        (lambda file: file["sparse_1"].__setitem__(25, 10**6), "does not hold ascending entries"),
        (lambda file: file["jacobian_sparse"].attrs.__setitem__("axes", "point"), "cannot be read"),
    ],
)
def test_files_with_another_pattern_are_refused(tmp_path, damage, words):
    results = run(tmp_path)
    results.close()
    with h5py.File(results.path, "r+") as file:
        damage(file)
    with pytest.raises(StoreError, match=words):
        open_results(results.path, edited=True)


def test_formats_are_checked_like_all_of_store(tmp_path):
    with pytest.raises(ConfigurationError, match="store.format"):
        run(tmp_path, form="spares")


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """The Hessians of a vector-valued function: three indices."""
    with run(tmp_path_factory.mktemp("stacked"), operators=("value", "hessian")) as results:
        yield results


@pytest.fixture(scope="module")
def hessians():
    return pipeline.evaluate(residual, X, "hessian").hessian.numpy()


def test_hessians_of_vectors_are_stored_as_entries_of_one_pattern(stacked, hessians):
    nnz = stacked.hessian_sparse.shape[1]
    assert nnz == np.count_nonzero(hessians[0]) == 34
    assert stacked.hessian_sparse.dims == ("point", "sparse_2")
    assert stacked.hessian.dims == ("point", "output", "input", "input_2")
    np.testing.assert_allclose(stacked.hessian[:], hessians, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(stacked.hessian[3, 2:5, :, 1], hessians[3, 2:5, :, 1], atol=1e-12)
    about = facts(stacked)["datasets"]["hessian_sparse"]["about"]
    assert about.endswith(f"(entries of {M} × {N} × {N} arrays)")


def test_hessians_of_vectors_are_read_by_all_who_read_matrices(stacked, hessians):
    sparse = stacked.sparse("hessian")
    assert sparse.shape == (POINTS, M, N, N)
    np.testing.assert_allclose(sparse[4].toarray(), hessians[4], atol=1e-12)
    np.testing.assert_allclose(sparse.to_torch(slice(2, 5)).to_dense(), hessians[2:5], atol=1e-12)
    assert stacked.names_along("sparse_2")[0] == "0,0,1"
    with stacked.to_xarray() as data:
        dense = np.zeros((M, N, N))
        places = (data["output_index"], data["input_index"], data["input_2_index"])
        dense[places] = data["hessian_sparse"].isel(point=5)
        np.testing.assert_allclose(dense, hessians[5], atol=1e-12)
    with h5py.File(stacked.path) as file:
        dense = np.zeros(file["sparsity/shape"][()])
        dense[tuple(file["sparsity/coordinates"][()])] = file["hessian_sparse"][6]
        np.testing.assert_allclose(dense, hessians[6], atol=1e-12)
        assert file["sparse_2"].attrs["compress"] == "output input input_2"


def test_hessians_of_vectors_are_compared_again_and_lend_their_pattern(stacked, tmp_path):
    found = verify(stacked.path, function=residual)
    assert found.faults == ()
    assert any("hessian: largest error" in fact for fact in found.facts)
    again = pipeline.evaluate(residual, X[:2], "hessian", pattern=stacked.path)
    assert again.sparse("hessian").nnz == 34
    export(stacked, tmp_path / "some.csv", "csv", ["hessian_sparse"], "0,1")
    assert "hessian_sparse[0,0,1]" in (tmp_path / "some.csv").read_text().splitlines()[0]
