"""A shard is looked at once when its run is put together: whatever is wrong with it is still found."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest
from support.sealing import resealed
from support.stored_runs import CERTIFICATE, LAYOUT, PROVENANCE, chunk, values, write_run

from pipeline.errors import GridError, StoreError
from pipeline.grids.file import FileGrid
from pipeline.store.export.integrity import check_files
from pipeline.store.files.run_directory import RunDirectory, shard_ranges
from pipeline.store.layout import write_group
from pipeline.store.parts.own_shard import ACCOUNT, account_entry
from pipeline.store.reading.reader import open_results
from pipeline.store.writing import assembly as result_module
from pipeline.store.writing.assembly import assemble

POINTS, ROWS = 11, 4


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    written = tmp_path_factory.mktemp("run")
    write_run(written, LAYOUT, POINTS, ROWS, "unfinished")
    return written


@pytest.fixture(params=["copied", "virtual"])
def directory(unfinished, tmp_path, request, monkeypatch):
    monkeypatch.setattr(result_module, "SMALL", 1 << 40 if request.param == "copied" else 0)
    return RunDirectory(shutil.copytree(unfinished, tmp_path / "run"))


def end(directory, points=POINTS):
    attrs = {"run_id": "0123", "start": 0, "stop": points, "created": "now", "history": "t"}
    assemble(directory, LAYOUT, shard_ranges(points, ROWS), attrs)


def refused(directory, message):
    with pytest.raises(StoreError, match=message) as raised:
        end(directory)
    assert "run the same command again" in str(raised.value)
    assert not directory.result.exists()
    assert not [*directory.path.glob(".*.tmp")]


@pytest.mark.parametrize("packed", [False, True])
def test_whole_shards_become_a_result(directory, packed):
    if packed:
        for index in range(3):
            chunk(directory.shard(index), LAYOUT)
    end(directory)
    expected = values(LAYOUT, POINTS)
    with open_results(directory.result) as results:
        for name, array in expected.items():
            np.testing.assert_array_equal(results[name][:], array)
        assert '"nonfinite": 2' in results.provenance["counts_json"]
        assert results.certificate["rows_checked"] == 3


def test_one_that_is_not_there(directory):
    directory.shard(1).unlink()
    with pytest.raises(StoreError, match="shard-00001.h5 cannot be opened: .*No such file"):
        end(directory)


def test_one_that_was_cut_off(directory):
    whole = directory.shard(2).read_bytes()
    directory.shard(2).write_bytes(whole[:-1000])
    refused(directory, "shard-00002.h5 has no seal at its end")


@pytest.mark.parametrize("byte", [9, 100, 1000, 3000])
def test_one_of_which_a_byte_has_changed(directory, byte):
    spoiled = bytearray(directory.shard(0).read_bytes())
    spoiled[byte] ^= 1
    directory.shard(0).write_bytes(spoiled)
    refused(directory, "shard-00000.h5 is damaged: its seal is broken")


@pytest.mark.parametrize(("name", "value"), [("run_id", "4567"), ("start", 5), ("stop", 9)])
def test_one_of_another_plan(directory, name, value):
    with resealed(directory.shard(1)) as file:
        file.attrs[name] = value
    refused(
        directory, r"shard-00001.h5 is in the way: expected run id, start, stop \('0123', 4, 8\)"
    )


def test_one_too_many(directory):
    directory.shard(7).write_bytes(directory.shard(1).read_bytes())
    refused(directory, r"shard-00007.h5 is in the way: .* None, got \('0123', 4, 8\)")


def test_one_with_a_dataset_of_another_shape(directory):
    with resealed(directory.shard(1)) as file:
        del file["jacobian"]
        file["jacobian"] = np.zeros((4, 3, 2))
    refused(directory, r"jacobian has to be float64 \(4, 2, 3\), got float64 \(4, 3, 2\)")


@pytest.mark.parametrize("lost", ["hessian", "provenance", "certificate/rows_error"])
def test_one_that_lacks_something(directory, lost):
    with resealed(directory.shard(1)) as file:
        del file[lost]
    refused(directory, "shard-00001.h5 cannot be read: .*; remove it")


@pytest.mark.parametrize("name", ["hessian", "provenance", "certificate/rows_error"])
def test_one_that_refers_to_another_file(directory, name):
    with resealed(directory.shard(1)) as file:
        del file[name]
        file[name] = h5py.ExternalLink("shard-00000.h5", name)
    refused(directory, f"'{name.rpartition('/')[2]}' refers to another file; remove it")


def test_one_whose_rows_lie_in_another_file(directory):
    (directory.path / "foreign").write_bytes(bytes(1 << 20))
    with resealed(directory.shard(1)) as file:
        del file["hessian"]
        file.create_dataset(
            "hessian", (4, 2, 3, 3), "f8", external=[(directory.path / "foreign", 0, 1 << 20)]
        )
    refused(directory, "'hessian' refers to another file; remove it")


@pytest.mark.parametrize("value", [np.arange(3), np.array([(1, 2)], "i4, i4")[0]])
def test_one_whose_evidence_is_of_another_kind(directory, value):
    with resealed(directory.shard(1)) as file:
        del file["certificate/rows_checked"]
        file["certificate/rows_checked"] = value
    refused(directory, "'rows_checked' is no text and no number")


def test_what_it_says_as_one_text_counts(directory):
    """Shards of earlier versions have no such text, and may lie beside others that have it."""
    provenance = PROVENANCE | {"host": "elsewhere", "threads": 3, "failures_json": '{"5": "bad"}'}
    certificate = CERTIFICATE | {"rows_checked": 2, "rows_error": '{"hessian": 1e-3}'}
    with resealed(directory.shard(1)) as file:
        write_group(file, "provenance", account_entry(provenance, certificate))
    end(directory)
    with open_results(directory.result) as results:
        hosts = json.loads(results.provenance["circumstances_json"])
        assert [(each["host"], each["threads"]) for each in hosts] == [
            ("here", "here"), ("elsewhere", 3),
        ]  # fmt: skip
        assert results.failures == {5: "bad"}
        assert results.certificate["rows_checked"] == 4
        assert json.loads(results.certificate["rows_error"]) == {"hessian": 1e-3}


@pytest.mark.parametrize("text", ["{", "[]", '{"provenance": {}, "certificate": {}}'])
def test_one_whose_text_says_something_else(directory, text):
    with resealed(directory.shard(1)) as file:
        write_group(file, "provenance", {ACCOUNT: text})
    refused(directory, "shard-00001.h5 cannot be read: .*; remove it")


def test_rows_that_have_changed_are_found_where_they_are_copied(directory):
    with resealed(directory.shard(1)) as file:
        file["hessian"][2, 0, 1, 1] += 1.0
    if result_module.SMALL:
        refused(directory, "shard-00001.h5: hessian has changed: expected crc32:")
    else:  # they stay where they are, beside their checksums: `results verify` compares them
        end(directory)


@pytest.fixture
def of_many(unfinished, tmp_path, monkeypatch):
    """A run that has ended, with more shards than one file refers to."""
    monkeypatch.setattr(result_module, "SMALL", 0)
    monkeypatch.setattr(result_module, "MOST_SOURCES", 2)
    directory = RunDirectory(shutil.copytree(unfinished, tmp_path / "run"))
    end(directory)
    return directory


def test_a_result_of_many_shards_refers_to_views_of_them(of_many, tmp_path):
    of_many.result.unlink()
    end(of_many)  # again, beside the views that are there
    moved = of_many.path.rename(tmp_path / "moved")
    with h5py.File(moved / "result.h5") as file:
        sources = [source.file_name for source in file["hessian"].virtual_sources()]
        assert sources == ["shards/view-00000-00002.h5", "shards/view-00002-00003.h5"]
        for name, array in values(LAYOUT, POINTS).items():
            np.testing.assert_array_equal(file[name][:], array)
            np.testing.assert_array_equal(file[name][6:9], array[6:9])
    with open_results(moved) as results:
        assert len(results.files) == 3
        np.testing.assert_array_equal(results.x[:], values(LAYOUT, POINTS)["x"])
        assert results.provenance["shard_bytes"] == sum(
            path.stat().st_size for path in results.files
        )
    (moved / "shards" / "shard-00002.h5").unlink()
    with pytest.raises(StoreError, match="1 of 3 are missing"):
        open_results(moved)


def shows(path, file_name, name="hessian"):
    """Let a view show something else."""
    with resealed(path) as file:
        shape, dtype = file["hessian"].shape, file["hessian"].dtype
        del file["hessian"]
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(file_name, name, shape)
        file.create_virtual_dataset("hessian", layout)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda path: None, None),
        (lambda path: path.unlink(), "view-00000-00002.h5 cannot be opened: .*; check the path"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has no seal at its end"),
        (lambda path: shows(path, "/etc/passwd"), "'hessian' has to show 'hessian' of the shards"),
        (lambda path: shows(path, "../shard-00001.h5"), "'hessian' has to show 'hessian' of the"),
        (lambda path: shows(path, "shard-00001.h5", "x"), "has to show 'hessian' of the shards"),
    ],
)
def test_views_are_not_read_by_us_and_are_verified_for_others(of_many, spoil, fault):
    spoil(of_many.path / "shards" / "view-00000-00002.h5")
    with open_results(of_many.path) as results:
        np.testing.assert_array_equal(results.x[:], values(LAYOUT, POINTS)["x"])
        faults = check_files(results)
    assert len(faults) == (fault is not None)
    if fault is not None:
        assert re.search(fault, faults[0])


def test_points_are_taken_from_a_result_of_many_shards(of_many):
    grid = FileGrid(str(of_many.result))
    np.testing.assert_array_equal(grid[5:9], values(LAYOUT, POINTS)["x"][5:9])
    of_many.shard(1).write_bytes(of_many.shard(1).read_bytes() + b" ")
    assert FileGrid(str(of_many.result)).spec != grid.spec  # the shards are part of what it is
    of_many.shard(1).unlink()
    with pytest.raises(GridError, match=r"takes rows from shard-00001.h5, which is not a file"):
        FileGrid(str(of_many.result))
