"""Results as AnnData, read by the package anndata."""

import os
import sys

import h5py
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

import pipeline
from pipeline.results import __main__ as commands

pytestmark = pytest.mark.slow
POINTS = torch.linspace(-1, 1, 60, dtype=torch.float64).reshape(20, 3)


@pytest.fixture
def anndata():
    if os.environ.get("CI"):
        import anndata

        return anndata
    return pytest.importorskip("anndata", reason="needs '.[anndata]'")


def chain(x):
    return ((x[1:] - x[:-1] ** 2) ** 2).sum()


def pair(x):
    return torch.stack([x[0] * x[1], x[2] ** 2])


PAIR = pipeline.Function(
    "pair", lambda: pair, n=3, output_shape=(2,), input_names=("a", "b", "c"), output_names=("u", "v")
)  # fmt: skip


def export(stored, target, *words):
    assert commands.main(["export", str(stored.path), str(target), *words]) == 0
    return target


def test_the_entries_of_a_sparse_hessian(anndata, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.store.writing.assembly.SMALL", 0)
    monkeypatch.setattr("pipeline.store.export.annotated.BLOCK", 400)  # blocks of a few rows
    with pipeline.run(
        chain, POINTS, ["value", "gradient", "hessian"], output_dir=tmp_path, shard_rows=6,
        store={"format": "sparse", "compression": "gzip"},
    ) as stored:  # fmt: skip
        data = anndata.read_h5ad(export(stored, tmp_path / "a.h5ad"))
        assert data.shape == (20, 7)
        assert np.array_equal(data.X, stored.hessian_sparse[:])
        assert np.array_equal(data.obs["value"], stored.value[:])
        assert list(data.obs["status"].unique()) == ["ok"]
        assert list(data.obs_names[:3]) == ["0", "1", "2"]
        for name in ("x", "gradient"):
            assert np.array_equal(data.obsm[name], stored[name][:])
        assert set(data.obsm) == {"x", "gradient"}
        assert data.uns["attrs"]["run_id"] == stored.attrs["run_id"]
        assert data.uns["certificate"]["route"] == stored.certificate["route"]
        pattern = data.uns["pattern"]
        for point in (0, 19):
            matrix = csr_array((data.X[point], pattern.indices, pattern.indptr), pattern.shape)
            assert np.array_equal(matrix.toarray(), stored.hessian[point])
        i, j = data.var["input"], data.var["input_2"]
        assert np.array_equal(stored.hessian[:][:, i, j], data.X)
        assert list(data.var_names[:3]) == ["hessian[0,0]", "hessian[0,1]", "hessian[1,0]"]


def test_a_part_is_read_from_disk(anndata, tmp_path):
    with pipeline.run(
        chain, POINTS, "hessian", output_dir=tmp_path, store={"format": "sparse"}
    ) as stored:
        backed = anndata.read_h5ad(export(stored, tmp_path / "a.h5ad"), backed="r")
        diagonal = backed[
            3:9, (backed.var["input"] == backed.var["input_2"]).to_numpy()
        ].to_memory()
        assert np.array_equal(diagonal.X, stored.hessian[3:9].diagonal(axis1=1, axis2=2))
        backed.file.close()


@pytest.mark.parametrize("name", ["hessian", "hessian_packed"])
def test_packed_and_whole_entries_have_their_names(anndata, tmp_path, name):
    with pipeline.run(
        PAIR, POINTS, ["jacobian", "hessian"], output_dir=tmp_path, store={"symmetric": "packed"}
    ) as stored:
        data = anndata.read_h5ad(
            export(stored, tmp_path / "a.h5ad", "--names", f"x,jacobian,{name}")
        )
        at = [data.var[dimension] for dimension in ("output", "input", "input_2")]
        assert np.array_equal(stored.hessian[:][:, *at], data.X)
        assert data.shape == (20, 2 * (9 if name == "hessian" else 6))
        assert np.array_equal(data.obsm["jacobian"], stored.jacobian[:])
        assert data[:, "hessian[u,a,b]"].X.ravel().tolist() == [1.0] * 20
        assert data[:, "hessian[v,c,c]"].X.ravel().tolist() == [2.0] * 20


@pytest.mark.parametrize("name", ["x", "value", "status"])
def test_a_single_dataset(anndata, tmp_path, name):
    with pipeline.run(chain, POINTS.float(), "value", output_dir=tmp_path) as stored:
        data = anndata.read_h5ad(export(stored, tmp_path / "a.h5ad", "--names", name))
        assert np.array_equal(data.X, stored[name][:].reshape(20, -1))
        assert data.X.dtype == stored[name].dtype
        with h5py.File(tmp_path / "a.h5ad") as file:
            assert file["X"].attrs["encoding-type"] == "array"


def test_without_anndata(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pipeline.run(chain, POINTS, "value", output_dir=tmp_path) as stored:
        assert commands.main(["export", str(stored.path), str(tmp_path / "a.h5ad")]) == 1
    assert "pip install 'pipeline-derivatives[anndata]'" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.h5ad*"))
