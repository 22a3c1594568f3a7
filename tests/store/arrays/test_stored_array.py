"""A stored array gives what NumPy gives, from every kind of file, and reads what is asked for."""

import gc
import re
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.stored_runs import LAYOUT, write_run

from pipeline.errors import StoreError
from pipeline.store.arrays import stored_array
from pipeline.store.arrays.selection import select, select_outer, take_outer
from pipeline.store.files.open_files import Descriptor
from pipeline.store.layout import Layout
from pipeline.store.reading.reader import open_results

KINDS = ("single", "virtual", "chunked")
SHAPE = (23, 2, 3, 3)  # of the Hessian


@pytest.fixture(scope="module", params=KINDS)
def stored(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "run"
    whole = write_run(path, kind=request.param)
    with open_results(path) as results:
        yield results, whole


@st.composite
def any_index(draw):
    """All that NumPy takes: slices, ints, None, ``...``, lists, arrays, masks, and mixtures."""
    kinds = [
        hnp.basic_indices(SHAPE, allow_newaxis=True),
        hnp.integer_array_indices(SHAPE),
        hnp.arrays(bool, st.integers(0, 4).map(lambda axes: SHAPE[:axes])),
        st.lists(st.integers(-23, 22), max_size=6),
        st.tuples(*map(axis_index, SHAPE)),
        st.tuples(st.booleans(), st.integers(-23, 22)),
    ]
    return draw(st.one_of(kinds))


def axis_index(length):
    return st.one_of(
        st.integers(-length, length - 1),
        st.slices(length),
        st.lists(st.integers(-length, length - 1), min_size=2, max_size=2),
        st.just(slice(None)),
        hnp.arrays(bool, st.just((length,))).map(
            lambda mask: np.arange(length) < mask.sum() % 2 + 1
        ),
    )


@settings(max_examples=300, deadline=None)
@given(any_index())
def test_every_index_gives_what_numpy_gives(stored, index):
    results, whole = stored
    try:
        expected = whole["hessian"][index]
    except IndexError:
        with pytest.raises(IndexError):
            results.hessian[index]
        return
    found = results.hessian[index]
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


@settings(max_examples=200, deadline=None)
@given(any_index())
def test_a_selection_is_a_box_and_a_way_out_of_it(index):
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    try:
        expected = array[index]
    except IndexError:
        return
    selection = select(index, SHAPE)
    assert np.array_equal(array[np.ix_(*selection.box)][selection.inner], expected)
    for positions in selection.box:
        assert np.all(np.diff(positions) > 0)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(
        *(
            st.one_of(axis_index(length).filter(lambda key: not isinstance(key, np.ndarray)))
            for length in SHAPE
        )
    )
)
def test_outer_keys_select_along_each_axis(stored, key):
    results, whole = stored
    expected = whole["hessian"]
    for axis in reversed(range(4)):
        expected = expected[(slice(None),) * axis + (key[axis],)]
    assert np.array_equal(results.hessian.outer(key), expected)
    selection = select_outer(key, SHAPE)
    box = whole["hessian"][np.ix_(*selection.box)]
    assert np.array_equal(take_outer(box, selection.inner), expected)


@pytest.mark.parametrize(
    "index", [23, -24, (0, 2), (slice(None), 0, 0, 0, 0), 0.5, "x", [1.5], [99]]
)
def test_an_index_that_does_not_fit_raises_what_numpy_raises(stored, index):
    results, whole = stored
    with pytest.raises(IndexError) as raised:
        whole["hessian"][index]
    with pytest.raises(IndexError, match=re.escape(str(raised.value)[:30])):
        results.hessian[index]


def test_it_is_an_array_to_numpy(stored):
    results, whole = stored
    array = results.hessian
    assert np.array_equal(np.asarray(array), whole["hessian"])
    assert np.asarray(array, dtype="f4").dtype == np.float32
    with pytest.raises(ValueError, match="an array of it is always a copy"):
        np.asarray(array, copy=False)
    assert (array.ndim, array.size, array.nbytes) == (4, 23 * 18, 23 * 18 * 8)
    assert np.array_equal(list(results.x), whole["x"])


@pytest.fixture
def bytes_read(monkeypatch):
    """Bytes that are read from files, beside what HDF5 reads."""
    counts = []
    read = Descriptor.read

    def counted(self, offset, out):
        counts.append(out.nbytes)
        read(self, offset, out)

    monkeypatch.setattr(Descriptor, "read", counted)
    return counts


def test_what_is_not_asked_for_is_not_read(tmp_path, bytes_read):
    layout = Layout(70, (), (("hessian", 2),), "float64", "wide rows")
    whole = write_run(tmp_path / "run", layout, points=8, rows=3)
    with open_results(tmp_path / "run") as results:
        assert np.array_equal(results.hessian[:, 0, 0], whole["hessian"][:, 0, 0])
        assert sum(bytes_read) == 8 * 8
        bytes_read.clear()
        assert np.array_equal(results.hessian[5, 3:5], whole["hessian"][5, 3:5])
        assert sum(bytes_read) == 2 * 70 * 8
        bytes_read.clear()
        assert np.array_equal(results.hessian[[7, 0]], whole["hessian"][[7, 0]])
        assert sum(bytes_read) == 2 * 70 * 70 * 8
        bytes_read.clear()
        assert results.hessian[8:].shape == (0, 70, 70)
        assert results.hessian[:, []].shape == (8, 0, 70)
        assert bytes_read == []


def test_a_column_takes_little_memory(tmp_path):
    layout = Layout(8, (), (("hessian", 2),), "float64", "narrow rows")
    whole = write_run(tmp_path / "run", layout, points=40_000, rows=40_000)  # 20 MB
    with open_results(tmp_path / "run") as results:
        tracemalloc.start()
        column = results.hessian[::-2, 3, 4]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert np.array_equal(column, whole["hessian"][::-2, 3, 4])
    assert peak < 5e6


@pytest.mark.parametrize("constant", ["NEAR", "SCRATCH", "AT_ONCE"])
def test_how_reads_are_cut_does_not_matter(stored, monkeypatch, constant):
    results, whole = stored
    monkeypatch.setattr(stored_array, constant, 3)
    for index in (
        [1, 2, 3, 9, 22],
        np.s_[::2],
        np.s_[:, 1],
        np.s_[3:20, :, 0],
        np.s_[::-3, 1, 2, 0],
    ):
        assert np.array_equal(results.hessian[index], whole["hessian"][index])


def test_threads_read_at_once(stored):
    results, whole = stored
    wrong = []

    def read(seed):
        generator = np.random.default_rng(seed)
        for _ in range(60):
            rows = generator.integers(0, 23, 4)
            if not np.array_equal(results.hessian[rows], whole["hessian"][rows]):
                wrong.append(rows)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def open_files():
    gc.collect()  # what earlier tests have let go
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="files are counted in /proc")
@pytest.mark.parametrize("kind", KINDS[1:])
def test_few_files_stay_open(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("pipeline.store.files.open_files.MOST_OPEN", 2)
    whole = write_run(tmp_path / "run", kind=kind)
    before = open_files()
    with open_results(tmp_path / "run") as results:
        assert open_files() == before
        for _ in range(2):
            assert np.array_equal(results.value[:], whole["value"])
            assert before < open_files() <= before + 4
    assert open_files() == before
    assert np.array_equal(results.value[3:9], whole["value"][3:9])


def test_float32_points_keep_their_bits(tmp_path):
    layout = Layout(2, (), (("gradient", 1),), "float32", "single precision")
    whole = write_run(tmp_path / "run", layout)
    with open_results(tmp_path / "run") as results:
        assert results.gradient.dtype == np.float32
        assert results.gradient[:].tobytes() == whole["gradient"].tobytes()


def test_points_that_are_not_there(tmp_path):
    whole = write_run(tmp_path / "run", kind="unfinished", drop=(0, 2))
    with open_results(tmp_path / "run") as results:
        assert results.missing() == [(0, 5), (10, 15)]
        assert results.present() == [(5, 10), (15, 20), (20, 23)]
        assert np.array_equal(results.x[[6, 21, 22]], whole["x"][[6, 21, 22]])
        for index, first in ((slice(None), 0), (3, 3), ([6, 12, 21], 12), (np.s_[7:, 0], 10)):
            with pytest.raises(StoreError, match=f"rows {first} and on have not been computed"):
                results.x[index]
        filled = results.x.outer((slice(None), slice(None)), np.nan)
        assert np.isnan(filled[[0, 4, 10, 14]]).all()
        assert np.array_equal(filled[15:], whole["x"][15:])
        with pytest.raises(StoreError, match=r"expected 0 <= start <= stop <= 23, got -1, 3"):
            results.x.read(-1, 3)


def test_the_layout_has_no_square_shapes():
    assert len({LAYOUT.n, *LAYOUT.output_shape, 23}) == 3
