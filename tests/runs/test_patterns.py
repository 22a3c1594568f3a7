"""Patterns that a user gives: read from every kind of file, used, checked, kept."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

import pipeline
from pipeline.errors import ConfigurationError, DisagreementError
from pipeline.runs.patterns import read_pattern

POINTS = torch.rand(9, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
BAND = np.eye(12) + np.roll(np.eye(12), 1, 0)


def chain(x):
    return x**2 + torch.relu(x.roll(1) - 5)


def branching(x):  # no pattern is found
    return chain(x) if x[0] > -1 else x


def energy(x):
    return ((x[1:] - x[:-1] ** 2) ** 2).sum()


def test_a_result_gives_its_pattern_to_the_next(tmp_path):
    first = pipeline.run(chain, POINTS, "jacobian", format="sparse", output_dir=tmp_path)
    again = pipeline.run(
        chain, POINTS + 1, "jacobian", pattern=first.path.parent, output_dir=tmp_path
    )
    with first, again:
        assert np.array_equal(first.sparse("jacobian").indices, again.sparse("jacobian").indices)
        expected = pipeline.evaluate(chain, POINTS + 1, "jacobian", route="loop").jacobian
        np.testing.assert_allclose(again.jacobian[:], expected, rtol=1e-12)
        in_memory = pipeline.evaluate(
            branching, POINTS, "jacobian", pattern=first.sparse("jacobian")
        )
    assert in_memory.jacobian_sparse.shape == (9, 24)
    assert pipeline.verify(again.path, function=chain).faults == ()


def test_every_kind_of_file_holds_the_same(tmp_path):
    matrix = scipy.sparse.csr_array(BAND)
    matrix.data[3] = 0.0  # a stored zero is an entry
    scipy.sparse.save_npz(tmp_path / "band.npz", matrix)
    scipy.io.mmwrite(tmp_path / "band.mtx", scipy.sparse.coo_array(matrix))
    np.save(tmp_path / "band.npy", BAND != 0)
    given = [tmp_path / f"band.{suffix}" for suffix in ("npz", "mtx", "npy")]
    given += [matrix, torch.from_numpy(BAND), torch.from_numpy(BAND).to_sparse_coo(), BAND != 0]
    digests = {read_pattern(each).digest for each in given}
    assert len(digests) == 1
    assert read_pattern(given[0]).nnz == 24


def test_both_triangles_come_from_a_symmetric_matrix_market_file(tmp_path):
    hessian = scipy.sparse.diags_array([1.0, 2.0, 1.0], offsets=[-1, 0, 1], shape=(12, 12))
    scipy.io.mmwrite(tmp_path / "band.mtx", hessian, symmetry="symmetric")
    found = pipeline.evaluate(energy, POINTS, pattern=str(tmp_path / "band.mtx"))
    torch.testing.assert_close(
        found.hessian, pipeline.evaluate(energy, POINTS, route="loop").hessian
    )
    assert any("pattern: given, and confirmed" in note for note in found.certificate.unchecked)


def test_a_run_finds_its_pattern_once(tmp_path, caplog):
    with caplog.at_level("INFO", "pipeline"):
        pipeline.run(chain, POINTS, "jacobian", format="sparse", output_dir=tmp_path).close()
    said = [record.getMessage() for record in caplog.records]
    assert sum("entries are kept" in line for line in said) == 1


def test_what_is_given_is_part_of_the_identity(tmp_path):
    runs = {}
    wider = BAND + np.roll(np.eye(12), 2, 0)
    for name, pattern in {"found": None, "band": BAND, "same": BAND * 2, "wider": wider}.items():
        with pipeline.run(
            chain, POINTS, "jacobian", pattern=pattern, output_dir=tmp_path,
            format="auto" if name == "band" else "sparse",
        ) as results:  # fmt: skip
            runs[name] = results.path
            assert results.sparse("jacobian").nnz == (36 if name == "wider" else 24)
    assert runs["band"] == runs["same"]
    assert len(set(runs.values())) == 3


def test_patterns_that_lack_entries_are_refused():
    lacking = np.eye(12)
    with pytest.raises(DisagreementError, match="leaves out 12 entries .* add them to pattern=,"):
        pipeline.evaluate(chain, POINTS, "jacobian", pattern=lacking)
    beyond = POINTS + 6  # where the missing entries are not zero, and the pattern is not found
    with pytest.raises(DisagreementError, match="differs from the reference"):
        pipeline.evaluate(branching, beyond, "jacobian", pattern=lacking)


def test_patterns_that_lack_entries_at_no_probe_point_are_flagged_or_caught():
    points = POINTS.repeat(20, 1)
    points[[1, 2, 3, *range(5, 175)]] += 6
    points[[68, 90, 130]] -= 6  # probe points of 180
    with pytest.raises(DisagreementError, match="differ"):
        pipeline.evaluate(branching, points, "jacobian", pattern=np.eye(12))
    notes = pipeline.prepare(branching, points[:1], "jacobian", pattern=np.eye(12)).certificate
    assert any("given, not confirmed: what it does depends" in note for note in notes.unchecked)


@pytest.mark.parametrize(
    ("pattern", "keywords", "words"),
    [
        (
            np.eye(5),
            {},
            "pattern: expected 12 x 12, the shape of the Jacobian, got 5 x 5; give that",
        ),
        (np.eye(12)[0], {}, r"pattern: expected a result .* got a ndarray of shape \(12,\)"),
        ("nowhere.npz", {}, "pattern: there is no file nowhere.npz; expected a result"),
        (
            np.eye(12),
            {"format": "dense"},
            "which entries of a sparse result are kept; leave it out",
        ),
    ],
)
def test_patterns_that_do_not_fit(pattern, keywords, words):
    with pytest.raises(ConfigurationError, match=words):
        pipeline.evaluate(chain, POINTS, "jacobian", pattern=pattern, **keywords)


def test_the_pattern_of_a_hessian_is_symmetric():
    with pytest.raises(ConfigurationError, match="has to be symmetric; give both of its triangles"):
        pipeline.evaluate(energy, POINTS, pattern=np.tril(np.ones((12, 12))))


def test_files_without_a_pattern(tmp_path):
    (tmp_path / "text.txt").write_text("1 2")
    with pytest.raises(ConfigurationError, match=r"text.txt has the suffix '.txt'; expected a res"):
        read_pattern(tmp_path / "text.txt")
    for name in ("a.npz", "a.mtx", "a.npy", "a.h5"):
        (tmp_path / name).write_bytes(b"no such thing")
        with pytest.raises(ConfigurationError, match=f"pattern: .*{name} cannot be read: "):
            read_pattern(tmp_path / name)
    with pipeline.run(chain, POINTS, "jacobian", format="dense", output_dir=tmp_path) as dense:
        path = dense.path
    with pytest.raises(ConfigurationError, match="it has no sparse derivative, but jacobian, "):
        read_pattern(path)


def test_scipy_may_be_missing(tmp_path, monkeypatch):
    scipy.sparse.save_npz(tmp_path / "band.npz", scipy.sparse.csr_array(BAND))
    monkeypatch.setitem(__import__("sys").modules, "scipy.sparse", None)
    with pytest.raises(
        ConfigurationError, match=r"SciPy is not installed, which reads .npz; pip install 'pipe"
    ):
        read_pattern(tmp_path / "band.npz")


@pytest.mark.slow
def test_on_the_command_line(cli, tmp_path):
    mask = np.tri(20, k=1) * np.tri(20, k=1).T
    np.save(tmp_path / "band.npy", mask)
    words = ("job=hessian", "function=rosenbrock", "grid=random", "grid.n=20", "grid.count=3")
    done = cli(*words, "pattern=band.npy")
    assert done.returncode == 0, done.stderr
    with pipeline.open_results(next((tmp_path / "outputs/hessian/rosenbrock").iterdir())) as found:
        assert found.sparse("hessian").nnz == 58
    refused = cli(*words, "pattern=band.npy", "store.format=dense")
    assert "leave it out, or ask for format=sparse" in refused.stderr
    assert refused.returncode != 0
