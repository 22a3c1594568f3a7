"""`python -m pipeline.results verify`."""

import h5py
import pytest
import torch
from conftest import MINE

import pipeline
from pipeline import results
from pipeline.errors import DisagreementError, StoreError
from pipeline.store.integrity import check_file


@pytest.fixture
def compute(mine, tmp_path):
    """Compute 40 points in three shards, or what is missing of them."""
    points = torch.linspace(-1, 1, 120, dtype=torch.float64).reshape(40, 3)

    def compute():
        pipeline.run(
            "chain", points, "hessian", plugins=[str(mine)], output_dir=tmp_path, shard_rows=16
        )
        (path,) = tmp_path.glob("*/chain/*")
        return path

    return compute


@pytest.fixture
def run(compute):
    return compute()


def test_what_was_just_computed_is_verified(run, cli):
    for path in (run, run / "result.h5"):
        done = cli("verify", str(path), module="pipeline.results")
        assert done.returncode == 0, done.stderr
        assert "every checksum is right" in done.stdout
        assert "16 points compared with loop" in done.stdout
        assert done.stdout.endswith("verified\n")
        assert "NOT" not in done.stdout


def shards(run):
    return sorted((run / "shards").glob("shard-*.h5"))


def spoil(path, name, row, value):
    with h5py.File(path, "r+") as file:
        file[name][row] = value


def test_a_changed_number_is_found_by_its_checksum(run, capsys):
    spoil(run / "result.h5", "hessian", 3, 7.0)
    assert results.main(["verify", str(run)]) == 1
    said = capsys.readouterr()
    assert "result.h5: hessian has changed: expected crc32:" in said.err
    assert "NOT verified" in said.out


def test_wrong_numbers_with_right_checksums_are_found_by_the_reference(run, capsys):
    path = run / "result.h5"
    spoil(path, "hessian", slice(None), 7.0)
    (fault,) = check_file(path)
    with h5py.File(path, "r+") as file:
        del file["checksums/hessian"]
        file["checksums/hessian"] = fault.split("got ")[1]
    assert check_file(path) == []
    assert results.main(["verify", str(path)]) == 1
    assert "hessian differs from the reference by" in capsys.readouterr().err


def test_another_source_is_said(run, mine, capsys):
    mine.write_text(MINE.replace("0.5 * stiffness", "0.7 * stiffness"))
    assert results.main(["verify", str(run)]) == 1
    assert "the source of function 'chain' has changed since" in capsys.readouterr().err
    mine.unlink()
    assert results.main(["verify", str(run)]) == 1
    assert "the certificate cannot be repeated" in capsys.readouterr().err


def test_missing_points_are_said(run, capsys):
    (run / "result.h5").unlink()
    shards(run)[1].unlink()
    assert results.main(["verify", str(run)]) == 1
    assert "points 16 to 31 are missing" in capsys.readouterr().err


def test_nothing_to_verify(tmp_path, capsys):
    assert results.main(["verify", str(tmp_path / "nothing.h5")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_spoiled_shard_does_not_become_a_result(run, compute):
    (run / "result.h5").unlink()
    spoil(shards(run)[1], "hessian", 3, 7.0)
    with pytest.raises(StoreError, match="hessian has changed: .*; remove the shard that is named"):
        compute()
    assert not (run / "result.h5").exists()
    shards(run)[1].unlink()
    compute()
    assert results.main(["verify", str(run)]) == 0


def test_a_lost_shard_is_computed_again(run, compute, monkeypatch):
    monkeypatch.setattr("pipeline.store.result.SMALL", 0)
    (run / "result.h5").unlink()
    compute()
    shards(run)[1].unlink()
    compute()
    assert results.main(["verify", str(run)]) == 0


def test_a_shard_of_another_plan_is_not_counted(run, compute):
    (run / "result.h5").unlink()
    first, second, _ = shards(run)
    second.write_bytes(first.read_bytes())
    with pytest.raises(StoreError, match=r"is in the way: expected run id, start, stop .*16, 32"):
        compute()


def test_what_was_let_pass_is_not_served_to_a_strict_job(tmp_path):
    def detached(x):
        return (x.detach() * x).sum()

    points = torch.rand(10, 2, dtype=torch.float64) + 1
    with pytest.raises(DisagreementError):
        pipeline.run(detached, points, "gradient", output_dir=tmp_path)
    pipeline.run(detached, points, "gradient", output_dir=tmp_path, on_disagreement="warn")
    with pytest.raises(DisagreementError, match="computed with on_disagreement=warn"):
        pipeline.run(detached, points, "gradient", output_dir=tmp_path)


def test_the_same_derivative_under_two_names_is_compared(tmp_path, mine, capsys):
    points = torch.rand(10, 2, dtype=torch.float64)
    stored = pipeline.run(
        "chain",
        points,
        ["hessian", "derivative"],
        order=2,
        plugins=[str(mine)],
        output_dir=tmp_path,
    )
    stored.close()
    spoil(stored.path, "hessian", slice(None), 7.0)
    (fault,) = check_file(stored.path)
    with h5py.File(stored.path, "r+") as file:
        del file["checksums/hessian"]
        file["checksums/hessian"] = fault.split("got ")[1]
    assert results.main(["verify", str(stored.path)]) == 1
    assert "hessian differs from derivative_2" in capsys.readouterr().err


def square(x):
    return (x**2).sum()


def cube(x):
    return (x**3).sum()


def test_an_object_is_verified_with_the_object(tmp_path):
    stored = pipeline.run(square, torch.ones(4, 2).double(), "gradient", output_dir=tmp_path)
    alone = pipeline.verify(stored.path)
    assert alone.faults == ()
    assert "given as a Python object" in alone.facts[-1]
    assert any(
        "gradient: largest error" in fact
        for fact in pipeline.verify(stored.path, function=square).facts
    )
    (fault,) = pipeline.verify(stored.path, function=cube).faults
    assert "the source of function 'square' has changed" in fault
