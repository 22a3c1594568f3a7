"""Commands on results: `python -m pipeline.results …`."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray
from conftest import MINE
from support.sealing import resealed
from support.stored_runs import CERTIFICATE, PROVENANCE, write_run

import pipeline
from pipeline.errors import DisagreementError, StoreError
from pipeline.results import __main__ as results
from pipeline.results.account import facts, sections
from pipeline.store.export.integrity import check_file
from pipeline.store.layout import write_group
from pipeline.store.parts.own_shard import account_entry


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


@pytest.mark.slow
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
    with resealed(path) as file:
        file[name][row] = value


def test_a_changed_number_is_found_by_its_checksum(run, capsys):
    spoil(run / "result.h5", "hessian", 3, 7.0)
    assert results.main(["verify", str(run)]) == 1
    said = capsys.readouterr()
    assert "result.h5: hessian has changed: expected crc32:" in said.err
    assert "NOT verified" in said.out


def test_wrong_numbers_with_right_checksums_are_found_by_the_reference(run, capsys):
    path = run / "result.h5"
    with resealed(path) as file:
        file["hessian"][...] *= 1 + 1e-7
    (fault,) = check_file(path)
    with resealed(path) as file:
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
    with pytest.raises(
        StoreError, match="hessian has changed: .*; remove it and run the same command again"
    ):
        compute()
    assert not (run / "result.h5").exists()
    shards(run)[1].unlink()
    compute()
    assert results.main(["verify", str(run)]) == 0


def test_a_lost_shard_is_computed_again(run, compute, monkeypatch):
    monkeypatch.setattr("pipeline.store.writing.assembly.SMALL", 0)
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
    with resealed(stored.path) as file:
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


@pytest.fixture(params=["whole", "virtual", "unfinished", "shard"])
def anything(run, request, monkeypatch, compute):
    """A result in each of the forms that it can have."""
    if request.param == "whole":
        return run
    if request.param == "shard":
        return shards(run)[1]
    (run / "result.h5").unlink()
    if request.param == "unfinished":
        shards(run)[1].unlink()
        return run
    monkeypatch.setattr("pipeline.store.writing.assembly.SMALL", 0)
    return compute()


def test_show_gives_an_account_of_anything(anything, capsys):
    assert results.main(["show", str(anything)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("hessian of chain at 40 points\n")
    words = [
        "hessian  (", "function       chain", "stiffness 1.0", "Frenkel & Kontorova 1938", "circumstances",
        "route", "finite differences", "loop over torch.autograd.grad",
    ]  # fmt: skip
    for word in words:
        assert word in said, word
    unfinished = anything.is_dir() and not (anything / "result.h5").is_file()
    assert ("missing  16 to 31" in said) == unfinished
    assert results.main(["show", str(anything), "--json"]) == 0
    account = json.loads(capsys.readouterr().out)
    assert account["datasets"]["hessian"]["dtype"] == "float64"
    assert account["certificate"]["reference_error"]["hessian"] < 1e-12


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (
            {"count": [5, 5], "lower": [-1.0, 0.0], "n": 2, "name": "linspace"},
            "name linspace, count 5 each, lower -1.0; 0.0, n 2",
        ),
        ({"name": "points", "digest": "7f"}, "name points, digest 7f"),
        ("strange", "strange"),
    ],
)  # fmt: skip
def test_show_says_once_what_is_the_same_for_all_inputs(run, grid, said):
    with pipeline.open_results(run) as opened:
        account = facts(opened)
    account["origin"]["grid"] = grid
    (rows,) = [rows for head, rows in sections(account) if head == "origin"]
    assert dict(rows)["grid"] == said


@pytest.fixture
def half_done(tmp_path):
    """Shards of two hosts, one of which saw failures and a disagreement; one shard is missing."""
    write_run(tmp_path / "run", kind="unfinished", drop=(1,))
    provenance = PROVENANCE | {"host": "elsewhere", "failures_json": '{"17": "too far"}'}
    provenance |= {"finished": "3"}
    disagreement = CERTIFICATE | {"disagreements": '["row 16 is odd"]', "rows_error": '{"x": 0.5}'}
    with resealed(tmp_path / "run" / "shards" / "shard-00003.h5") as file:
        write_group(file, "provenance", account_entry(provenance, disagreement))
    return tmp_path / "run"


def test_an_unfinished_run_is_told_of_by_every_shard(half_done):
    with pipeline.open_results(half_done) as stored:
        assert not stored.finished
        assert stored.failures == {17: "too far"}
        assert stored.certificate["rows_checked"] == 4
        assert json.loads(stored.certificate["disagreements"]) == ["row 16 is odd"]
        hosts = json.loads(stored.provenance["circumstances_json"])
        assert [(each["host"], each["shards"]) for each in hosts] == [("here", 3), ("elsewhere", 1)]
        assert stored.provenance["finished"] == "3"
        status = stored.status
        seen = np.concatenate([status[start:stop] for start, stop in stored.present()])
        assert stored.counts() == {
            "ok": int((seen == 1).sum()), "nonfinite": int((seen == 2).sum()),
            "failed": 0, "nonsmooth": 0,
        }  # fmt: skip
    with pipeline.open_results(half_done, edited=True) as stored:
        assert stored.failures == {17: "too far"}


def test_of_very_many_shards_the_first_one_speaks_until_the_run_ends(run, monkeypatch, capsys):
    (run / "result.h5").unlink()
    shards(run)[1].unlink()
    with pipeline.open_results(run) as stored:
        assert facts_of_the_result(stored)["status"] == {"ok": 24}
    monkeypatch.setattr("pipeline.results.account.MOST_READ", 1)
    monkeypatch.setattr(
        "pipeline.store.reading.results.gather_from", None
    )  # nobody asks the others
    with pipeline.open_results(run) as stored:
        said = facts_of_the_result(stored)
    size = sum(path.stat().st_size for path in shards(run))
    assert said == {
        "files": 2, "bytes": size, "points": 40, "computed": 24, "missing": ["16 to 31"], "status": None,
    }  # fmt: skip
    assert results.main(["show", str(run)]) == 0
    told = "24 of 40: status, failures and evidence of so many shards are put together at the end"
    assert told in capsys.readouterr().out


def facts_of_the_result(stored):
    result = facts(stored)["result"]
    return {key: value for key, value in result.items() if key not in ("title", "path", "run")}


def test_show_costs_no_torch(run):
    code = (
        "import sys; from pipeline.results.__main__ import main; "
        f"main(['show', {str(run)!r}]); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_show_lists_what_failed(tmp_path, capsys):
    def fussy(x):
        if x[0] > 0:
            raise ValueError(f"at {float(x[0]):.2f}\nfar out")
        return (x**2).sum()

    points = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
    stored = pipeline.run(fussy, points, "gradient", output_dir=tmp_path, route="loop")
    results.main(["show", str(stored.path)])
    said = capsys.readouterr().out
    assert "20 of 20: ok 10, failed 10" in said
    assert "point 10  ValueError: at 0.05 far out\n" in said
    assert "5 more" in said


def test_a_virtual_result_becomes_one_file(run, monkeypatch, compute, tmp_path, capsys):
    (run / "result.h5").unlink()
    monkeypatch.setattr("pipeline.store.writing.assembly.SMALL", 0)
    compute()
    target = tmp_path / "deep" / "one.h5"
    assert results.main(["consolidate", str(run), str(target)]) == 0
    capsys.readouterr()
    target = target.rename(tmp_path / "moved.h5")
    with pipeline.open_results(run) as many, pipeline.open_results(target) as one:
        assert len(many.files) == 3
        assert one.files == (target,)
        assert {k: v for k, v in one.attrs.items() if k != "start"} == {
            k: v for k, v in many.attrs.items() if k != "start"
        }
        assert one.certificate == many.certificate
        assert one.provenance == many.provenance
        for name in many.names:
            assert np.array_equal(one[name][:], many[name][:])
            assert one[name].attrs.keys() == many[name].attrs.keys()
            assert one[name].dims == many[name].dims
    assert check_file(target) == []
    with xarray.open_dataset(target, engine="netcdf4") as data:
        assert data["hessian"].dims == ("point", "input", "input_2")
    assert results.main(["verify", str(target)]) == 0
    assert results.main(["consolidate", str(run), str(target)]) == 1
    assert "moved.h5 is in the way" in capsys.readouterr().err


def test_only_what_is_finished_and_sound_is_consolidated(
    run, compute, tmp_path, monkeypatch, capsys
):
    (run / "result.h5").unlink()
    target = tmp_path / "one.h5"
    assert results.main(["consolidate", str(run), str(target)]) == 1
    assert "has all of its shards but no result.h5" in capsys.readouterr().err
    monkeypatch.setattr("pipeline.store.writing.assembly.SMALL", 0)
    compute()
    spoil(shards(run)[2], "hessian", 0, 1.0)
    assert results.main(["consolidate", str(run), str(target)]) == 1
    assert "hessian has changed" in capsys.readouterr().err
    (run / "result.h5").unlink()
    shards(run)[1].unlink()
    assert results.main(["consolidate", str(run), str(target)]) == 1
    assert "is not finished: points 16 to 31 are missing; run" in capsys.readouterr().err
    assert not list(tmp_path.glob("*one*"))


def test_export_to_numpy_and_zarr(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.store.export.formats.BLOCK", 1000)
    monkeypatch.setattr("pipeline.store.export.formats.CHUNK", 500)
    assert results.main(["export", str(run), str(tmp_path / "arrays")]) == 0
    assert results.main(["export", str(run), str(tmp_path / "a.zarr"), "--names", "x,hessian"]) == 0
    with pipeline.open_results(run) as stored, xarray.open_zarr(tmp_path / "a.zarr") as data:
        for name in stored.names:
            assert np.array_equal(np.load(tmp_path / "arrays" / f"{name}.npy"), stored[name][:])
        assert set(data) == {"x", "hessian"}
        assert data["hessian"].dims == ("point", "input", "input_2")
        assert np.array_equal(data["hessian"].values, stored.hessian[:])
        assert data.attrs["run_id"] == stored.attrs["run_id"]


def test_export_of_chosen_points(tmp_path):
    function = pipeline.Function(
        "two", lambda: lambda x: torch.stack([x.sum(), x.prod()]), n=2, output_shape=(2,),
        input_names=("a", "b"), output_names=("u", "v"),
    )  # fmt: skip
    points = torch.tensor([[0.1, 1 / 3], [2.0, -5e-324], [7.0, 8.0]], dtype=torch.float64)
    stored = pipeline.run(function, points, "jacobian", output_dir=tmp_path)
    target = tmp_path / "t.csv"
    words = ["export", str(stored.path), str(target), "--points", "0,-2:"]
    assert results.main(words) == 0
    with target.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [
        "point", "x[a]", "x[b]", "jacobian[u,a]", "jacobian[u,b]", "jacobian[v,a]", "jacobian[v,b]", "status",
    ]  # fmt: skip
    assert [row["point"] for row in table] == ["0", "1", "2"]
    assert [row["status"] for row in table] == ["ok"] * 3
    assert [float(row["x[b]"]) for row in table] == points[:, 1].tolist()
    assert float(table[2]["jacobian[v,a]"]) == 8.0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["a.foo"], r"format 'foo' is unknown. Known: csv, h5ad, npy, zarr"),
        (["a.csv", "--names", "hesian"], r"no dataset 'hesian'. Did you mean 'hessian'"),
        (["a.csv", "--points", "3,40"], r"points: expected indices .* below 40, got '40'"),
        (["a.csv", "--points", "x"], r"points: expected indices .*, got 'x'"),
        (["a.npy", "--points", "3"], r"points are chosen for csv; npy takes the whole result"),
        (["taken.csv"], r"taken.csv is in the way"),
    ],
)
def test_an_export_that_cannot_be_made_leaves_nothing(run, tmp_path, words, complaint, capsys):
    (tmp_path / "taken.csv").write_text("mine")
    before = sorted(tmp_path.iterdir())
    assert results.main(["export", str(run), str(tmp_path / words[0]), *words[1:]]) == 1
    assert re.search(complaint, capsys.readouterr().err)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "taken.csv").read_text() == "mine"


def test_a_table_of_too_many_rows(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.store.export.formats.MOST_ROWS", 39)
    assert results.main(["export", str(run), str(tmp_path / "a.csv")]) == 1
    assert "choose some by points" in capsys.readouterr().err
    assert not list(tmp_path.glob("*a.csv*"))


def test_without_zarr(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert results.main(["export", str(run), str(tmp_path / "a.zarr")]) == 1
    assert "pip install 'pipeline-derivatives[zarr]'" in capsys.readouterr().err


def test_an_export_to_where_nothing_can_be_made(tmp_path, capsys):
    points = torch.rand(3, 2, dtype=torch.float64)
    run = pipeline.run("rosenbrock", points, "gradient", output_dir=tmp_path).path
    assert results.main(["export", str(run), "/dev/null/x/y.csv"]) == 1
    said = capsys.readouterr().err
    assert "error: cannot write /dev/null/x/y.csv: [Errno 20] Not a directory" in said
