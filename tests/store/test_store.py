"""The store: layout, commit protocol, assembling, reading."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray

from pipeline.errors import StoreError
from pipeline.store.files.commit import committed, remove_stale
from pipeline.store.files.run_directory import RunDirectory, shard_ranges
from pipeline.store.layout import SCHEMA, Layout
from pipeline.store.parts.own_shard import CIRCUMSTANCES
from pipeline.store.reading.reader import open_results
from pipeline.store.writing import assembly as result_module
from pipeline.store.writing.assembly import assemble
from pipeline.store.writing.shard import new_shard

LAYOUT = Layout(
    n=3,
    output_shape=(2,),
    operators=(("value", 0), ("jacobian", 1), ("hessian", 2), ("derivative_3", 3)),
    dtype="float64",
    title="a test",
    input_names=("a", "b", "c"),
    output_names=("u", "v"),
    input_units="m",
    output_units="J",
)

CERTIFICATE = {
    "route": "loop", "error": 1e-16, "rows_checked": 1, "rows_error": "{}", "disagreements": "[]",
}  # fmt: skip
PROVENANCE = {
    **dict.fromkeys(CIRCUMSTANCES, "here"), "started": "1", "finished": "2", "failures_json": "{}",
    "config_yaml": "a: 1\n" * 20_000, "seed": 3,
}  # fmt: skip


def rows(start, stop):
    generator = np.random.default_rng(0)
    whole = {
        d.name: generator.standard_normal((10, *d.shape)).astype(d.dtype) for d in LAYOUT.datasets()
    }
    whole["status"] = np.array([1, 1, 2, 1, 1, 3, 1, 1, 1, 1], dtype="u1")
    return {name: values[start:stop] for name, values in whole.items()}


def attrs(start, stop):
    return {"run_id": "0123", "start": start, "stop": stop, "created": "now", "history": "test"}


def write(path, start, stop):
    with new_shard(path, LAYOUT, stop - start, attrs(start, stop)) as writer:
        middle = (start + stop) // 2
        writer.append(rows(start, middle))
        writer.append(rows(middle, stop))
        writer.describe("certificate", CERTIFICATE)
        writer.describe("provenance", PROVENANCE)


@pytest.fixture
def run_directory(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.make()
    directory.begin({"schema": SCHEMA, "points": 10})
    for index, (start, stop) in enumerate(shard_ranges(10, 4)):
        write(directory.shard(index), start, stop)
    return directory


@pytest.fixture(params=["real", "virtual"])
def finished(run_directory, request, monkeypatch):
    if request.param == "virtual":
        monkeypatch.setattr(result_module, "SMALL", 0)
    assemble(run_directory, LAYOUT, shard_ranges(10, 4), attrs(0, 10))
    with h5py.File(run_directory.result) as file:
        assert file["hessian"].is_virtual == (request.param == "virtual")
    return run_directory


def test_a_result_reads_back_bit_for_bit(finished):
    for path in (finished.path, finished.result):
        with open_results(path) as results:
            for name, expected in rows(0, 10).items():
                stored = results[name]
                assert stored.shape == expected.shape
                assert stored.dtype == expected.dtype
                assert np.array_equal(stored[:], expected)
                assert np.array_equal(stored[3:9:2], expected[3:9:2])
                assert np.array_equal(stored[-1], expected[-1])
                assert np.array_equal(np.asarray(stored), expected)
            assert np.array_equal(results.hessian[2:6, 1, :, 0], rows(2, 6)["hessian"][:, 1, :, 0])
            assert results.missing() == []
            assert (results.count("ok"), results.count("nonfinite"), results.count("failed")) == (
                8,
                1,
                1,
            )
            assert results.certificate["rows_checked"] == 3
            assert results.certificate["error"] == 1e-16
            assert results.provenance["config_yaml"] == "a: 1\n" * 20_000
            assert "hessian (10, 2, 3, 3) float64" in repr(results)
            assert "hessian" in dir(results)


def test_batches_are_tensors(finished):
    with open_results(finished.path) as results:
        parts = list(results.batches(4, ["x", "value"]))
        assert [len(part["x"]) for part in parts] == [4, 4, 2]
        assert torch.equal(
            torch.cat([part["value"] for part in parts]), torch.from_numpy(rows(0, 10)["value"])
        )


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_reads_names_and_dimensions(finished, engine):
    with xarray.open_dataset(finished.result, engine=engine) as data:
        assert data["hessian"].dims == ("point", "output", "input", "input_2")
        assert data["derivative_3"].dims[-1] == "input_3"
        assert list(data["input_name"].values) == ["a", "b", "c"]
        assert data["hessian"].attrs["units"] == "J (m)-2"
        assert data["hessian"].attrs["symmetric"] == "input input_2"
        assert data.attrs["Conventions"] == "CF-1.11"
        assert data["status"].attrs["flag_meanings"] == "missing ok nonfinite failed nonsmooth"
        assert np.array_equal(data["hessian"].values, rows(0, 10)["hessian"])
    assert "point" not in data.coords


def test_the_result_directory_can_be_moved(finished, tmp_path):
    moved = tmp_path / "elsewhere"
    finished.path.rename(moved)
    with open_results(moved) as results, h5py.File(moved / "result.h5") as file:
        assert np.array_equal(file["value"][()], results.value[:])
        assert np.array_equal(results.to_xarray()["x"].values, rows(0, 10)["x"])


def test_the_dimension_point_takes_no_storage(finished):
    with h5py.File(finished.result) as file:
        assert file["point"].id.get_storage_size() == 0


def test_checksums_are_those_of_the_bytes(run_directory):
    import zlib

    with h5py.File(run_directory.shard(0)) as file:
        for name, expected in rows(0, 4).items():
            assert (
                file["checksums"][name][()].decode()
                == f"crc32:{zlib.crc32(expected.tobytes()):08x}"
            )


def test_an_unfinished_run_can_be_read(run_directory):
    run_directory.shard(1).unlink()
    with open_results(run_directory.path) as results:
        assert results.points == 10
        assert results.missing() == [(4, 8)]
        assert np.array_equal(results.x[8:10], rows(8, 10)["x"])
        with pytest.raises(
            StoreError, match=r"rows 4 and on have not been computed \(asked for 2:10\)"
        ):
            results.x[2:10]
        with pytest.raises(StoreError, match="is not finished"):
            results.to_xarray()


def test_a_missing_shard_of_a_virtual_result_is_said_loudly(run_directory, monkeypatch):
    monkeypatch.setattr(result_module, "SMALL", 0)
    assemble(run_directory, LAYOUT, shard_ranges(10, 4), attrs(0, 10))
    run_directory.shard(2).unlink()
    with pytest.raises(StoreError, match=r"1 of 3 are missing \(shard-00002.h5"):
        open_results(run_directory.path)


def test_reading_into_a_buffer(finished):
    with open_results(finished.path) as results:
        buffer = np.empty((4, 3))
        assert results.x.read(3, 7, out=buffer) is buffer
        assert np.array_equal(buffer, rows(3, 7)["x"])
        with pytest.raises(
            StoreError, match=r"buffer has to be float64 \(4, 3\), got float64 \(5, 3\)"
        ):
            results.x.read(3, 7, out=np.empty((5, 3)))


def test_names_that_are_not_there(finished):
    with open_results(finished.path) as results:
        with pytest.raises(StoreError, match="no dataset 'hesian'. Did you mean 'hessian'"):
            results["hesian"]
        with pytest.raises(AttributeError, match="Did you mean 'hessian'"):
            results.hesian  # noqa: B018


def test_nothing_remains_of_a_shard_that_fails(tmp_path):
    def half_a_shard():
        with new_shard(tmp_path / "shard-00000.h5", LAYOUT, 4, attrs(0, 4)) as writer:
            writer.append(rows(0, 2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_a_shard()
    assert list(tmp_path.iterdir()) == []


def test_a_committed_file_is_never_replaced(tmp_path):
    final = tmp_path / "done"
    for text in ("first", "second"):
        with committed(final) as temporary:
            temporary.write_text(text)
    assert final.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


def test_a_full_disk_is_one_clear_error(tmp_path):
    def fill():
        with committed(tmp_path / "done") as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left on device; finished shards are safe"):
        fill()
    assert list(tmp_path.iterdir()) == []


def left_behind(directory, name):
    """The temporary of a process that is killed while it writes."""
    writes = (
        "import os, sys, pathlib; from pipeline.store.files.commit import committed\n"
        "with committed(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.touch()\n"
        "    os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", writes, str(directory / name)], check=False)
    (path,) = directory.glob(f".{Path(name).stem}.*.tmp")
    return path


def test_stale_temporaries_of_dead_processes_are_removed(tmp_path):
    dead = left_behind(tmp_path, "shard-00000.h5")
    with committed(tmp_path / "shard-00001.h5") as alive:
        alive.touch()
        remove_stale(tmp_path)
        assert list(tmp_path.iterdir()) == [alive]
        assert not dead.exists()


@pytest.mark.parametrize("part", [1, 2], ids=["another machine", "another container"])
def test_a_temporary_from_elsewhere_stays_whatever_its_host_is_called(part, tmp_path):
    host = re.escape(socket.gethostname())
    dead = left_behind(tmp_path, "shard-00000.h5")
    place = re.search(rf"(\.{host}\.)([0-9a-f-]+)\.([0-9]+)\.", dead.name)
    other = place[part + 1].replace(place[part + 1][-1], "7" if place[part + 1][-1] != "7" else "8")
    foreign = dead.rename(tmp_path / dead.name.replace(place[part + 1], other))
    remove_stale(tmp_path)
    assert foreign.exists()
    (tmp_path / "shard-00000.h5").touch()  # it is done: nobody needs the other one
    remove_stale(tmp_path)
    assert not foreign.exists()


def test_a_container_leaves_what_a_process_outside_writes(tmp_path):
    """Its number is nobody's in there, under the same name of the host."""
    tidies = (
        "import sys, pathlib; from pipeline.store.files.commit import remove_stale\n"
        "remove_stale(pathlib.Path(sys.argv[1])); print('tidied')"
    )
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", tidies]
    with committed(tmp_path / "shard-00000.h5") as alive:
        alive.touch()
        done = subprocess.run([*inside, str(tmp_path)], capture_output=True, text=True, check=False)
        if "tidied" not in done.stdout:
            pytest.skip(f"no namespaces can be made here: {done.stderr}")
        assert alive.exists()


@pytest.mark.parametrize("content", ["not json", '{"schema": "other"}', "[]"])
def test_a_foreign_plan_is_in_the_way(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(StoreError, match="run.json is in the way"):
        RunDirectory(tmp_path).plan()


def test_the_first_plan_counts(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.begin({"schema": SCHEMA, "batch": 1})
    assert directory.begin({"schema": SCHEMA, "batch": 2})["batch"] == 1
    assert json.loads((tmp_path / "run.json").read_text())["batch"] == 1


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made.*choose another with output_dir="):
        RunDirectory(tmp_path / "file" / "run").make()


def test_space_is_checked_before_work_starts(tmp_path):
    RunDirectory(tmp_path).require_space(1)
    with pytest.raises(StoreError, match="still to be written take"):
        RunDirectory(tmp_path).require_space(1 << 60)


def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(StoreError, match="expected result.h5 or shards of a run, found neither"):
        open_results(tmp_path)
    (tmp_path / "7f3a").mkdir()
    (tmp_path / "7f3a" / "result.h5").touch()
    with pytest.raises(StoreError, match="it holds the runs 7f3a: choose one"):
        open_results(tmp_path)
    with pytest.raises(StoreError, match="there is no .*nowhere; check the path: a job says where"):
        open_results(tmp_path / "nowhere")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(
        StoreError, match="text.h5 is no HDF5 file; expected result.h5, a shard, or"
    ):
        open_results(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["schema"] = "something else"
    with pytest.raises(StoreError, match="has no seal at its end.*something else"):
        open_results(tmp_path / "other.h5")
    with pytest.raises(
        StoreError, match=f"expected a file of schema '{SCHEMA}', got 'something else'"
    ):
        open_results(tmp_path / "other.h5", edited=True)


def test_a_folder_above_or_below_a_run_names_it(tmp_path):
    run = tmp_path / "hessian" / "chain" / "7f3a"
    (run / "shards").mkdir(parents=True)
    with pytest.raises(StoreError, match="found neither; a job says where its result is"):
        open_results(tmp_path)
    (run / "run.json").touch()
    for place, name in (
        (tmp_path, "hessian/chain/7f3a"),
        (tmp_path / "hessian", "chain/7f3a"),
        (run.parent, "7f3a"),
    ):
        with pytest.raises(StoreError, match=f"it holds the runs {name}: choose one"):
            open_results(place)
    with pytest.raises(StoreError, match="it is a part of the run .*7f3a: give that"):
        open_results(run / "shards")
    (tmp_path / "sweep.csv").touch()
    with pytest.raises(
        StoreError, match="it is the folder of a sweep, whose runs sweep.csv in it names"
    ):
        open_results(tmp_path)
    for index in range(9):
        (run.parent / str(index)).mkdir()
        (run.parent / str(index) / "result.h5").touch()
    with pytest.raises(StoreError, match=r"(\w+, ){7}\w+ and more: choose one"):
        open_results(run.parent)


def test_temporaries_of_what_somebody_else_has_committed_are_removed(tmp_path):
    path = tmp_path / "shard-00000.h5"
    with committed(path) as late:
        late.write_text("the same")
        with committed(path) as first:
            first.write_text("the same")
        remove_stale(tmp_path)
        assert not late.exists()
    assert path.read_text() == "the same"
    assert list(tmp_path.iterdir()) == [path]
