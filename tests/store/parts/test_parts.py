"""Files that are not what they have to be are refused when they are first read; opening says what is lost."""

import json
import os
import pickle
import shutil
import time

import h5py
import numpy as np
import pytest
import torch
from support.sealing import resealed
from support.stored_runs import LAYOUT, chunk, write_run

from pipeline.errors import MissingShardsError, StoreError
from pipeline.store.files.run_directory import RunDirectory
from pipeline.store.layout import Layout
from pipeline.store.parts import parts
from pipeline.store.reading.reader import open_results


@pytest.fixture
def run(tmp_path):
    whole = write_run(tmp_path / "run")
    return RunDirectory(tmp_path / "run"), whole


def test_a_shard_of_another_run_is_not_read(run, tmp_path):
    directory, _ = run
    write_run(tmp_path / "other", plan={"run_id": "4567"})
    shutil.copy(RunDirectory(tmp_path / "other").shard(2), directory.shard(2))
    with open_results(directory.path) as results:
        results.x[:10]
        with pytest.raises(StoreError, match=r"shard-00002.h5 is not the part.*0123.*got.*4567"):
            results.x[:]


def test_a_shard_of_other_points_is_not_read(run):
    directory, _ = run
    shutil.copy(directory.shard(1), directory.shard(2))
    with (
        open_results(directory.path) as results,
        pytest.raises(StoreError, match=r"start=10, stop=15.*got.*start=5, stop=10"),
    ):
        results.x[11]


@pytest.mark.parametrize("kind", ["external link", "external storage", "virtual"])
def test_a_shard_that_refers_to_another_file_is_not_read(run, tmp_path, kind):
    directory, _ = run
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.zeros((5, 3))
    with resealed(directory.shard(1)) as file:
        del file["x"]
        if kind == "external link":
            file["x"] = h5py.ExternalLink(str(secret), "x")
        elif kind == "external storage":
            file.create_dataset("x", (5, 3), "f8", external=[(str(secret), 0, 120)])
        else:
            virtual = h5py.VirtualLayout((5, 3), "f8")
            virtual[:] = h5py.VirtualSource(str(secret), "x", (5, 3))
            file.create_virtual_dataset("x", virtual)
    with (
        open_results(directory.path) as results,
        pytest.raises(StoreError, match="'x' refers to another file; remove it"),
    ):
        results.x[:]


@pytest.mark.parametrize("change", ["shape", "dtype", "gone", "run_id", "text"])
def test_a_shard_that_has_changed_is_not_read(run, change):
    directory, _ = run
    path = directory.shard(1)
    if change == "text":
        path.write_text("no HDF5")
    else:
        with resealed(path) as file:
            if change == "run_id":
                file.attrs["run_id"] = ["0123", "0123"]
            else:
                del file["x"]
            if change in ("shape", "dtype"):
                file["x"] = np.zeros((4, 3)) if change == "shape" else np.zeros((5, 3), "f4")
    with open_results(directory.path) as results:
        expected = {
            "text": "no HDF5 file",
            "gone": "cannot be read",
            "run_id": "cannot be read",
        }.get(change, r"x has to be float64 \(5, 3\)")
        with pytest.raises(
            StoreError, match=f"{expected}.*remove it and run the same command again"
        ):
            results.x[:]


def test_a_shard_that_goes_away(run):
    directory, _ = run
    with open_results(directory.path) as results:
        directory.shard(1).unlink()
        with pytest.raises(StoreError, match="shard-00001.h5 cannot be opened.*bring it back"):
            results.x[:]


def test_a_shard_that_is_cut_short_while_it_is_open(run):
    directory, _ = run
    with open_results(directory.path) as results:
        results.hessian[:]
        os.truncate(directory.shard(1), 3000)
        with pytest.raises(
            StoreError, match="shard-00001.h5 has been cut short: expected .* bytes more"
        ):
            results.hessian[:]


def test_a_shard_that_is_replaced_is_looked_into_again(run, monkeypatch):
    monkeypatch.setattr("pipeline.store.files.open_files.MOST_OPEN", 1)
    directory, whole = run
    with open_results(directory.path) as results:
        assert np.array_equal(results.x[:], whole["x"])
        path = directory.shard(1)
        with resealed(path) as file:  # the same values at another place in the file
            values = file["x"][()]
            del file["x"]
            file["filler"] = np.zeros(1000)
            file["x"] = values
        os.utime(path, ns=(time.time_ns(), time.time_ns() + 1))
        assert np.array_equal(results.x[:], whole["x"])


def test_a_disk_that_fails(run, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    directory, _ = run
    with open_results(directory.path) as results:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(StoreError, match="shard-00000.h5 cannot be read.*Input/output error"):
            results.x[:]


def test_compressed_values_that_are_broken(tmp_path):
    write_run(tmp_path / "run", kind="chunked")
    path = RunDirectory(tmp_path / "run").shard(1)
    with h5py.File(path) as file:
        offset = file["x"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(20))
    with (
        open_results(tmp_path / "run") as results,
        pytest.raises(StoreError, match="shard-00001.h5: x cannot be read.*remove the file"),
    ):
        results.x[:]


def test_a_wide_row_of_a_compressed_file_is_read_in_part(tmp_path):
    layout = Layout(70, (), (("hessian", 2),), "float64", "wide rows")
    whole = write_run(tmp_path / "run", layout, points=8, rows=3, kind="chunked")
    with open_results(tmp_path / "run") as results:
        assert np.array_equal(results.hessian[:, 3, 4:6], whole["hessian"][:, 3, 4:6])


@pytest.mark.parametrize("how", ["big-endian", "userblock"])
def test_values_that_do_not_lie_as_they_are_are_read_by_hdf5(tmp_path, how):
    whole = write_run(tmp_path / "run", kind="single")
    path = tmp_path / "run" / "result.h5"
    if how == "userblock":
        path.write_bytes(bytes(1024) + path.read_bytes())
    else:
        with resealed(path) as file:
            del file["x"]
            file.create_dataset("x", data=whole["x"].astype(">f8"))
    with open_results(path, edited=how == "userblock") as results:
        assert np.array_equal(results.x[:], whole["x"])
        assert np.array_equal(results.hessian[3:9], whole["hessian"][3:9])


def test_what_is_lost_is_said_when_a_result_is_opened(run):
    directory, _ = run
    for index in (0, 3):
        directory.shard(index).unlink()
    with pytest.raises(
        MissingShardsError, match=r"2 of 5 are missing \(shard-00000.h5, shard-00003.h5…"
    ):
        open_results(directory.result)
    shutil.rmtree(directory.path / "shards")
    with pytest.raises(MissingShardsError, match="needs its shards, and all are missing; keep"):
        open_results(directory.path)


@pytest.mark.parametrize("extra", ["shard-00005.h5", "shard-00009.h5"])
def test_a_shard_too_many(run, extra):
    directory, _ = run
    shutil.copy(directory.shard(4), directory.path / "shards" / extra)
    with pytest.raises(StoreError, match=rf"{extra} of .* cannot be shards of 23 points"):
        open_results(directory.path)


@pytest.mark.parametrize(
    ("stop", "complaint"),
    [
        (0, "holds no points"),
        (7, "start and stop make it 7"),
        (5, "cannot be shards of 23 points.*holds 2:"),
    ],
)
def test_a_first_shard_that_does_not_fit(run, stop, complaint):
    directory, _ = run
    with resealed(directory.shard(0)) as file:
        file.attrs["start"], file.attrs["stop"] = 2, 2 + stop
    with pytest.raises(StoreError, match=complaint):
        open_results(directory.path)


def test_a_plan_without_points(tmp_path):
    write_run(tmp_path / "run", kind="unfinished")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"points": None}))
    with pytest.raises(StoreError, match="the plan of the run cannot be read"):
        open_results(tmp_path / "run")


def test_a_file_without_its_attributes(tmp_path):
    write_run(tmp_path / "run", kind="single")
    with resealed(tmp_path / "run" / "result.h5") as file:
        del file.attrs["stop"]
    with pytest.raises(StoreError, match="result.h5 lacks the attributes stop"):
        open_results(tmp_path / "run")


def test_a_lone_shard_is_a_result(run):
    directory, whole = run
    with open_results(directory.shard(4)) as results:
        assert results.points == 3
        assert np.array_equal(results.hessian[:], whole["hessian"][20:])


@pytest.mark.parametrize("kind", ["single", "virtual", "chunked", "unfinished"])
def test_results_are_sent_to_other_processes(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    whole = write_run(tmp_path / "run", kind=kind)
    with open_results("run") as results:
        results.x[:]
        sent = pickle.dumps(results)
    monkeypatch.chdir("/")
    with pickle.loads(sent) as results:
        assert np.array_equal(results.hessian[:], whole["hessian"])
        assert results.certificate["route"] == "loop"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["virtual", "chunked"])
def test_forked_processes_read_while_the_parent_reads(tmp_path, kind):
    whole = write_run(tmp_path / "run", kind=kind)
    with open_results(tmp_path / "run") as results:
        results.hessian[:]  # files are open now
        children = []
        for seed in range(4):
            child = os.fork()
            if child == 0:
                rows = np.random.default_rng(seed).integers(0, 23, 50)
                same = all(np.array_equal(results.x[row], whole["x"][row]) for row in rows)
                os._exit(0 if same else 1)
            children.append(child)
        for row in range(23):
            assert np.array_equal(results.x[row], whole["x"][row])
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


def test_attributes_and_names(run):
    directory, _ = run
    with open_results(directory.path) as results:
        assert results.names == ("hessian", "jacobian", "status", "value", "x")
        assert results.labels == {"input": ("a", "b", "c"), "output": ("u", "v")}
        assert results.hessian.dims == ("point", "output", "input", "input_2")
        assert results.x.attrs["units"] == "m"
        assert results.attrs["title"] == "a test"
        assert results.grid == {}
        assert len(results.files) == 5
        assert repr(results).splitlines()[1] == "  <hessian (23, 2, 3, 3) float64>"


def test_a_buffer_is_filled_where_it_lies(run):
    directory, whole = run
    with open_results(directory.path) as results:
        for buffer in (np.empty((9, 3)), torch.empty(9, 3, dtype=torch.float64)):
            assert results.x.read(3, 12, out=buffer) is buffer
            assert np.array_equal(np.asarray(buffer), whole["x"][3:12])
        larger = torch.zeros(20, 3, dtype=torch.float64)
        results.x.read(3, 12, out=larger[5:14])
        assert np.array_equal(larger.numpy()[5:14], whole["x"][3:12])
        assert larger[:5].eq(0).all()
        leaf = torch.zeros(9, 3, dtype=torch.float64, requires_grad=True)
        assert np.array_equal(results.x.read(3, 12, out=leaf).detach(), whole["x"][3:12])


@pytest.mark.gpu
def test_a_pinned_buffer_is_filled_where_it_lies(run):
    directory, whole = run
    with open_results(directory.path) as results:
        buffers = results.buffers(9, ["x"], pin_memory=True)
        results.x.read(3, 12, out=buffers["x"])
        assert buffers["x"].is_pinned()
        assert np.array_equal(buffers["x"].cuda().cpu(), whole["x"][3:12])


@pytest.mark.parametrize(
    ("buffer", "complaint"),
    [
        (np.empty((8, 3)), r"has to be float64 \(9, 3\), got float64 \(8, 3\)"),
        (np.empty((9, 3), "f4"), r"got float32 \(9, 3\)"),
        (np.empty((3, 9)).T, r"C-contiguous and writable, got strides \(8, 72\)"),
        (np.broadcast_to(np.zeros(3), (9, 3)), "writable=False"),
        (torch.empty(9, 6, dtype=torch.float64)[:, ::2], "C-contiguous"),
        (torch.empty(9, 3), r"got float32 \(9, 3\)"),
        (torch.empty(9, 3, dtype=torch.bfloat16), r"got torch.bfloat16 \(9, 3\)"),
        (
            torch.empty(9, 3, device="meta"),
            "in CPU memory, got one on meta; read into a pinned tensor",
        ),
        ([0.0] * 27, "a NumPy array or a torch tensor, got list"),
    ],
)
def test_a_buffer_that_does_not_fit(run, buffer, complaint):
    directory, _ = run
    with open_results(directory.path) as results, pytest.raises(StoreError, match=complaint):
        results.x.read(3, 12, out=buffer)


def test_a_compressed_file_is_the_same_to_its_reader(tmp_path):
    whole = write_run(tmp_path / "run", kind="single")
    chunk(tmp_path / "run" / "result.h5", LAYOUT)
    with open_results(tmp_path / "run") as results:
        assert np.array_equal(results.hessian[:], whole["hessian"])


def test_only_the_parts_that_are_read_are_made(run, monkeypatch):
    directory, whole = run
    made = []

    class Counted(parts.Part):
        def __init__(self, path, *rest):
            made.append(path.name)
            super().__init__(path, *rest)

    monkeypatch.setattr(parts, "Part", Counted)
    with open_results(directory.path) as results:
        assert results.present() == [(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)]
        assert results.missing() == []
        assert len(results.files) == 5
        assert made == []
        assert np.array_equal(results.x[11:16], whole["x"][11:16])
        assert np.array_equal(results.value[12], whole["value"][12])
    assert sorted(made) == ["shard-00002.h5", "shard-00003.h5"]


@pytest.mark.parametrize("drop", [(0,), (4,), (1, 2), (0, 3, 4)])
def test_what_is_missing_lies_between_the_parts(drop, tmp_path):
    write_run(tmp_path / "run", kind="unfinished", drop=drop)
    with open_results(tmp_path / "run") as results:
        lost = {point for start, stop in results.missing() for point in range(start, stop)}
        there = {point for start, stop in results.present() for point in range(start, stop)}
    expected = {point for shard in drop for point in range(shard * 5, min(shard * 5 + 5, 23))}
    assert lost == expected
    assert there == set(range(23)) - expected


def test_many_gaps_are_named_in_a_few_words(tmp_path):
    write_run(tmp_path / "run", rows=1, kind="unfinished", drop=range(1, 23, 2))
    with open_results(tmp_path / "run") as results:
        last = repr(results).splitlines()[-1]
    assert last == "  missing: 1 to 1, 3 to 3, 5 to 5, 7 to 7, 9 to 9, 6 more gaps"
