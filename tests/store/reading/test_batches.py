"""Batches in order, read ahead; datasets of torch.utils.data: every point once, with its values."""

import logging
import pickle
import threading

import numpy as np
import pytest
import torch
from support.stored_runs import write_run
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from pipeline.errors import StoreError
from pipeline.store.reading.ahead import read_ahead
from pipeline.store.reading.reader import open_results
from pipeline.store.reading.torch_dataset import share_out


@pytest.fixture(scope="module", params=["single", "virtual", "chunked"])
def stored(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "run"
    whole = write_run(path, kind=request.param)
    return open_results(path), whole


def glued(batches, name):
    return np.concatenate([np.asarray(batch[name]) for batch in batches])


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_batches_are_the_whole_in_order(stored, rows, prefetch, kind):
    results, whole = stored
    batches = list(results.batches(rows, ("point", "x", "hessian"), kind, prefetch=prefetch))
    assert [len(batch["x"]) for batch in batches][:-1] == [rows] * (len(batches) - 1)
    assert isinstance(batches[0]["x"], torch.Tensor if kind == "torch" else np.ndarray)
    for name in ("x", "hessian"):
        assert np.array_equal(glued(batches, name), whole[name])
    assert np.array_equal(glued(batches, "point"), np.arange(23))


def test_all_datasets_by_default(stored):
    results, whole = stored
    (batch,) = results.batches(23)
    assert set(batch) == set(whole)
    assert set(next(results.batches(3, "x"))) == {"x"}


@pytest.mark.parametrize("sets", [1, 2, 4])
def test_buffers_are_used_again(stored, sets):
    results, whole = stored
    names = ("x", "value", "point")
    buffers = [results.buffers(4, names) for _ in range(sets)]
    starts = 0
    for number, batch in enumerate(
        results.batches(4, names, out=buffers if sets > 1 else buffers[0])
    ):
        assert batch["x"].data_ptr() == buffers[number % sets]["x"].data_ptr()
        stop = starts + len(batch["x"])
        assert np.array_equal(batch["x"], whole["x"][starts:stop])
        assert np.array_equal(batch["value"], whole["value"][starts:stop])
        assert batch["point"].tolist() == list(range(starts, stop))
        starts = stop
    assert starts == 23


def test_numpy_buffers(stored):
    results, whole = stored
    out = {"x": np.empty((10, 3))}
    found = [batch["x"].copy() for batch in results.batches(10, ["x"], out=out)]
    assert np.array_equal(np.concatenate(found), whole["x"])


def test_buffers_and_batches_that_do_not_fit(stored):
    results, _ = stored
    with pytest.raises(
        StoreError, match=r"x: the buffer has to be float64 \(4, 3\), got float64 \(5, 3\)"
    ):
        results.batches(4, ["x"], out={"x": np.empty((5, 3))})
    with pytest.raises(StoreError, match="there is no buffer for 'x'. .*Known: y"):
        results.batches(4, ["x"], out={"y": np.empty((4, 3))})
    with pytest.raises(StoreError, match="at least one point, got rows=0"):
        results.batches(0)
    with pytest.raises(StoreError, match="no batches of kind 'jax'.*Known: numpy, torch"):
        results.batches(4, kind="jax")
    with pytest.raises(StoreError, match="no dataset 'hesian'. Did you mean 'hessian'"):
        results.batches(4, ["hesian"])


def test_an_unfinished_run_is_said_and_its_points_can_be_left_out(tmp_path, caplog):
    whole = write_run(tmp_path / "run", kind="unfinished", drop=(0, 2))
    results = open_results(tmp_path / "run")
    for ask in (lambda: results.batches(4), results.dataset, lambda: results.stream(4)):
        with pytest.raises(
            StoreError, match=r"10 of 23 points are missing, first 0:5; run.*skip_missing"
        ):
            ask()
    there = [*range(5, 10), *range(15, 23)]
    with caplog.at_level(logging.WARNING):
        batches = list(results.batches(4, ["point", "x"], skip_missing=True))
    assert "10 of 23 points are missing and left out" in caplog.text
    assert [len(batch["x"]) for batch in batches] == [4, 1, 4, 4]
    dataset = results.dataset(["point", "x"], skip_missing=True)
    stream = results.stream(4, ["point", "x"], skip_missing=True)
    for parts in (batches, [dataset[:]], list(stream)):
        assert glued(parts, "point").tolist() == there
        assert np.array_equal(glued(parts, "x"), whole["x"][there])


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_the_thread_is_ahead_and_ends_when_the_loop_is_left():
    begun, second = [], threading.Event()

    def read(task):
        begun.append(task)
        if len(begun) == 3:
            second.set()
        return task * 10

    answers = read_ahead(read, range(100), 2)
    assert begun == []
    assert next(answers) == 0
    assert second.wait(10)  # two more than have been asked for
    assert next(answers) == 10
    answers.close()
    assert len(begun) <= 5
    assert readers() == []
    for answer in read_ahead(read, range(100), 2):
        if answer == 20:
            break
    assert readers() == []


def test_what_the_thread_raises_is_raised_in_its_turn():
    def read(task):
        if task == 2:
            raise StoreError("no such rows")
        return task

    found = []
    with pytest.raises(StoreError, match="no such rows"):
        found.extend(read_ahead(read, range(5), 3))
    assert found == [0, 1]
    assert readers() == []


def test_a_file_that_goes_away_is_an_error_of_the_loop(tmp_path):
    write_run(tmp_path / "run")
    results = open_results(tmp_path / "run")
    results.files[3].unlink()
    with pytest.raises(StoreError, match="shard-00003.h5 cannot be opened"):
        for _ in results.batches(2):
            pass
    assert readers() == []


LOADERS = {
    "in this process": {},
    "forked": {"num_workers": 2, "multiprocessing_context": "fork"},
    "persistent": {"num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": True},
    "spawned": {"num_workers": 2, "multiprocessing_context": "spawn"},
}

HOW = [pytest.param(how, marks=[pytest.mark.slow] * (how == "spawned")) for how in LOADERS]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_every_point_comes_once_with_its_values(stored, how):
    results, whole = stored
    results.x[:]  # files are open before the workers begin
    loader = DataLoader(
        results.dataset(("point", "x", "hessian")), batch_size=4, shuffle=True, **LOADERS[how]
    )
    for _ in range(2 if how == "persistent" else 1):
        batches = list(loader)
        order = glued(batches, "point")
        assert sorted(order) == list(range(23))
        assert [len(batch["x"]) for batch in batches] == [4, 4, 4, 4, 4, 3]
        for name in ("x", "hessian"):
            assert np.array_equal(glued(batches, name), whole[name][order])


@pytest.mark.parametrize("how", HOW)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_stream_is_shared_out_among_workers(stored, how):
    results, whole = stored
    loader = DataLoader(results.stream(4, ("point", "x")), batch_size=None, **LOADERS[how])
    batches = list(loader)
    order = glued(batches, "point")
    assert sorted(order) == list(range(23))
    assert np.array_equal(glued(batches, "x"), whole["x"][order])
    if not LOADERS[how]:
        assert order.tolist() == list(range(23))


def test_ranks_share_a_stream(stored):
    results, _ = stored
    parts = [list(results.stream(2, ["point"], share=(rank, 3))) for rank in range(3)]
    assert glued([batch for part in parts for batch in part], "point").tolist() == list(range(23))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(StoreError, match=r"0 <= rank < ranks, got \(3, 3\)"):
        results.stream(2, share=(3, 3))


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 40])
def test_shares_are_all_that_there_is(workers):
    spans = tuple((k, k + 1) for k in range(13))
    shares = [share_out(spans, number, workers) for number in range(workers)]
    assert sum(map(tuple, shares), ()) == spans


def test_only_points_that_are_ok(stored):
    results, whole = stored
    ok = np.flatnonzero(whole["status"] == 1)
    assert 0 < len(ok) < 23
    dataset = results.dataset(["point", "x"], only_ok=True)
    assert len(dataset) == len(ok)
    assert dataset[:]["point"].tolist() == ok.tolist()
    assert np.array_equal(dataset[3]["x"], whole["x"][ok[3]])
    for rows in (1, 4):
        batches = list(results.stream(rows, ["point", "x"], only_ok=True))
        assert glued(batches, "point").tolist() == ok.tolist()
        assert np.array_equal(glued(batches, "x"), whole["x"][ok])


def test_samples_of_a_dataset(stored):
    results, whole = stored
    dataset = results.dataset(("point", "x"))
    assert len(dataset) == 23
    assert dataset[5]["x"].shape == (3,)
    assert dataset[-1]["point"] == 22
    assert np.array_equal(dataset[torch.tensor(4)]["x"], whole["x"][4])
    for index in ([3, 1, 1, -1], torch.tensor([3, 1, 1, 22]), slice(2, 9, 3)):
        batch = dataset[index]
        assert np.array_equal(batch["x"], whole["x"][index])
    samples = dataset.__getitems__([7, 7, 0])
    assert [sample["point"].item() for sample in samples] == [7, 7, 0]
    assert np.array_equal(samples[2]["x"], whole["x"][0])
    with pytest.raises(IndexError):
        dataset[23]
    assert sum(1 for _ in dataset) == 23
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again[:]["x"], whole["x"])


def test_a_batch_sampler_needs_no_collating(stored):
    results, whole = stored
    dataset = results.dataset(("point", "x"))
    sampler = BatchSampler(RandomSampler(dataset), 5, drop_last=False)
    batches = list(DataLoader(dataset, sampler=sampler, batch_size=None))
    order = glued(batches, "point")
    assert sorted(order) == list(range(23))
    assert np.array_equal(glued(batches, "x"), whole["x"][order])
