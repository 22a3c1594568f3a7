"""What a result knows of its shards spares HDF5, and is believed only where the seal is the same."""

import h5py
import numpy as np
import pytest
from support.sealing import resealed
from support.stored_runs import LAYOUT, write_run

from pipeline.errors import StoreError
from pipeline.store.files.run_directory import RunDirectory
from pipeline.store.parts import part
from pipeline.store.parts.known_shards import known_entries, read_known
from pipeline.store.reading.reader import open_results


@pytest.fixture
def looked(monkeypatch):
    """Names of the files that HDF5 was asked about."""
    names, look = [], part._look_into

    def noted(path, *rest):
        names.append(path.name)
        return look(path, *rest)

    monkeypatch.setattr(part, "_look_into", noted)
    return names


@pytest.fixture
def run(tmp_path):
    whole = write_run(tmp_path)
    return RunDirectory(tmp_path), whole


def require_right(directory, whole):
    with open_results(directory.path) as results:
        for name, expected in whole.items():
            assert np.array_equal(results[name][:], expected)


def test_it_says_where_rows_lie(run):
    directory, _ = run
    with h5py.File(directory.result) as file:
        for index in range(5):
            with h5py.File(directory.shard(index)) as shard:
                for name in LAYOUT.datasets():
                    offset = file[f"shards/offset_{name.name}"][index]
                    assert offset == shard[name.name].id.get_offset()


def test_nothing_is_asked_of_hdf5(run, looked):
    require_right(*run)
    assert looked == []


def test_results_that_do_not_know_are_read_as_before(run, looked):
    directory, whole = run
    with resealed(directory.result) as file:
        del file["shards"]
    require_right(directory, whole)
    assert set(looked) == {f"shard-0000{index}.h5" for index in range(5)}


def test_a_shard_with_another_seal_is_looked_into(run, looked):
    directory, whole = run
    with resealed(directory.shard(3)) as file:
        x = file["x"][()]
        del file["x"]  # it is laid down elsewhere
        file["x"] = x
        file["x"].dims[0].attach_scale(file["point"])
    require_right(directory, whole)
    assert set(looked) == {"shard-00003.h5"}


def test_a_shard_in_chunks_is_read_by_hdf5(tmp_path, looked):
    whole = write_run(tmp_path, kind="chunked")
    require_right(RunDirectory(tmp_path), whole)
    assert len(set(looked)) == 5


def test_a_damaged_shard_is_refused(run):
    directory, _ = run
    spoiled = bytearray(directory.shard(2).read_bytes())
    spoiled[1000] ^= 1
    directory.shard(2).write_bytes(spoiled)
    with (
        open_results(directory.path) as results,
        pytest.raises(StoreError, match=r"shard-00002.h5 is damaged: its seal is broken"),
    ):
        results.x[:]


@pytest.mark.parametrize("offset", [-8, 0, 512, 1 << 40])
def test_what_is_no_place_of_rows_is_not_read(run, offset, looked):
    directory, whole = run
    with resealed(directory.result) as file:
        file["shards/offset_x"][1] = offset
    require_right(directory, whole)
    assert looked == ["shard-00001.h5"]


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        (np.zeros(5), "has entries that are no integers"),
        (np.zeros((5, 5), "u4"), "has entries that are no integers"),
        (b"text", "has entries that are no integers"),
        (np.zeros(4, "u4"), "has entries of different lengths"),
    ],
)
def test_entries_of_another_kind(run, entries, fault):
    directory, _ = run
    with resealed(directory.result) as file:
        del file["shards/mark"]
        file["shards/mark"] = entries
    with (
        h5py.File(directory.result) as file,
        pytest.raises(ValueError, match=f"'shards' {fault}"),
    ):
        read_known(file.id, directory.result)
    with pytest.raises(StoreError, match=r"result.h5"), open_results(directory.path) as results:
        results.x[:]


def test_entries_of_another_number_of_shards_are_left_aside(run, looked):
    directory, whole = run
    with resealed(directory.result) as file:
        for name in [*file["shards"]]:
            del file[f"shards/{name}"]
            file[f"shards/{name}"] = np.zeros(4, "i8")
    require_right(directory, whole)
    assert len(set(looked)) == 5


def test_entries_of_another_file_are_refused(run, tmp_path):
    directory, _ = run
    with resealed(directory.result) as file:
        del file["shards"]
        file["shards"] = h5py.ExternalLink("shards/shard-00001.h5", "/")
    with pytest.raises(StoreError, match="'shards' refers to another file"):
        open_results(directory.path)


def test_very_many_shards_are_not_written_down(monkeypatch):
    monkeypatch.setattr("pipeline.store.parts.known_shards.MOST", 2)
    assert known_entries(LAYOUT.datasets()[:1], [1, 2, 3], [[4], [5], [6]]) == {}
    known = known_entries(LAYOUT.datasets()[:1], [1, 2], [[4], [-1]])
    assert {name: column.tolist() for name, column in known["shards"].items()} == {
        "mark": [1, 2], "offset_x": [4, -1],
    }  # fmt: skip
