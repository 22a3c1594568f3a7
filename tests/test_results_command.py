"""`python -m pipeline.results verify`."""

import h5py
import pytest
import torch
from conftest import MINE

import pipeline
from pipeline import results
from pipeline.errors import StoreError
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
