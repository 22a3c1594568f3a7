"""The laws of `pipeline.grids.base.Grid`, for every kind."""

import json
import pickle
import time
import tracemalloc

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.functions.parameters import bind
from pipeline.functions.record import AnySize
from pipeline.grids.builtin import pipeline_grids
from pipeline.grids.kind import GridKind, Space
from pipeline.grids.points import PointsGrid
from pipeline.registry import Registry

SPACE = Space(AnySize(3), -2.0, 3.0, seed=11)
KINDS = {kind.name: kind for kind in pipeline_grids()}
LARGE = 10**9
LAZY = {
    "linspace": ("linspace", {"count": 1000}),
    "linspace_log": ("linspace", {"count": 1000, "lower": 1e-3, "upper": 7.0, "spacing": "log"}),
    "linspace_one_axis": ("linspace", {"count": LARGE, "n": 1}),
    "uniform": ("random", {"count": LARGE}),
    "normal": ("random", {"count": LARGE, "distribution": "normal", "mean": 2.0, "std": 0.5}),
    "sobol": ("sobol", {"count": LARGE}),
    "sobol_plain": ("sobol", {"count": LARGE, "scramble": False, "n": 5}),
    "latin_hypercube": ("latin_hypercube", {"count": LARGE}),
}
DATA = np.random.default_rng(0).normal(size=(257, 3))
HELD = ["npy", "npz", "csv", "h5", "points"]


def build(name, space=SPACE, **options):
    values, faults = bind(KINDS[name].options, options, "grid")
    assert not faults
    return KINDS[name].build(space, **values)


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grids")
    np.save(folder / "a.npy", DATA)
    np.savez_compressed(folder / "a.npz", x=DATA)
    np.savetxt(folder / "a.csv", DATA, delimiter=",", fmt="%.17g")
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = DATA
    files = {end: build("file", path=str(folder / f"a.{end}")) for end in HELD[:-1]}
    return {**files, "points": PointsGrid(DATA)}


def check_slices(grid, a, left, right):
    b, c = a + left, a + left + right
    whole = grid[a:c]
    assert whole.dtype == torch.float64
    assert whole.shape == (min(c, len(grid)) - a, grid.n)
    assert torch.equal(whole[b - a :], grid[b:c])
    assert torch.equal(whole[: b - a], grid[a:b])


@pytest.mark.parametrize("label", LAZY)
@settings(max_examples=30, deadline=None)
@given(a=st.integers(0, LARGE - 200), left=st.integers(0, 90), right=st.integers(0, 90))
def test_a_slice_depends_on_its_indices_only(label, a, left, right):
    name, options = LAZY[label]
    check_slices(build(name, **options), a, left, right)


@pytest.mark.parametrize("label", LAZY)
def test_the_last_points_of_a_large_grid(label):
    name, options = LAZY[label]
    check_slices(build(name, **options), LARGE - 37, 17, 20)


@pytest.mark.parametrize("label", HELD)
def test_held_points_keep_the_law(held, label):
    for a in (0, 1, 100, 250):
        check_slices(held[label], a, 3, 4)
    assert torch.equal(held[label][:], torch.from_numpy(DATA))


@pytest.mark.parametrize("label", LAZY)
def test_every_slice_size_gives_the_same_bits(label):
    name, options = LAZY[label]
    grid, start, rows = build(name, **options), 123_456_789, 640
    whole = grid[start : start + rows]
    for size in (1, 3, 8, 64, 257):
        parts = [grid[i : min(i + size, start + rows)] for i in range(start, start + rows, size)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("label", [*LAZY, *HELD])
def test_empty_slices_and_refused_indices(held, label):
    grid = held[label] if label in held else build(LAZY[label][0], **LAZY[label][1])
    assert grid[5:5].shape == (0, grid.n)
    assert grid[9:5].shape == (0, grid.n)
    with pytest.raises(TypeError, match="slices start:stop of step 1"):
        grid[::2]
    with pytest.raises(TypeError, match="got 3"):
        grid[3]


@pytest.mark.parametrize("label", [*LAZY, *HELD])
def test_pickling_keeps_the_points_and_the_spec(held, label):
    grid = held[label] if label in held else build(LAZY[label][0], **LAZY[label][1])
    before = grid[10:20]
    again = pickle.loads(pickle.dumps(grid))
    assert torch.equal(again[10:20], before)
    assert again.spec == grid.spec
    assert json.loads(json.dumps(dict(grid.spec))) == dict(grid.spec)


@pytest.mark.parametrize("label", LAZY)
def test_time_and_memory_grow_with_the_slice_only(label):
    name, options = LAZY[label]
    grid = build(name, **options)
    grid[:10]
    elapsed = []
    for start in range(5):
        began = time.perf_counter()
        grid[10**8 + start : 10**8 + start + 1000]
        elapsed.append(time.perf_counter() - began)
    tracemalloc.start()
    grid[10**8 : 10**8 + 1000]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert min(elapsed) < 0.05
    assert peak < 2**20


def test_different_options_have_different_specs():
    options = [
        *LAZY.values(),
        ("random", {"count": LARGE, "seed": 12}),
        ("random", {"count": LARGE, "lower": 0.0}),
        ("sobol", {"count": LARGE, "seed": 12}),
        ("latin_hypercube", {"count": LARGE, "seed": 12}),
        ("points", {"values": [[1, 2, 3]]}),
        ("points", {"values": [[1, 2, 4]]}),
    ]
    specs = [json.dumps(build(name, **given).spec) for name, given in options]
    assert len(set(specs)) == len(specs)


def test_the_seed_of_the_run_is_the_default():
    other = Space(AnySize(3), -2.0, 3.0, seed=12)
    for name in ("random", "sobol", "latin_hypercube"):
        assert torch.equal(build(name, seed=12)[:], build(name, other)[:])
        assert not torch.equal(build(name)[:], build(name, other)[:])


def test_kinds_with_the_same_seed_share_no_numbers():
    unit = {"count": 1000, "lower": 0.0, "upper": 1.0, "n": 1}
    normal = build("random", count=1000, distribution="normal", n=1)[:]
    columns = [build(name, **unit)[:] for name in ("random", "sobol", "latin_hypercube")]
    table = torch.cat([*columns, torch.special.ndtr(normal)], dim=1).T
    correlation = torch.corrcoef(table) - torch.eye(4, dtype=torch.float64)
    assert correlation.abs().max() < 0.15


def test_the_kinds_are_contributed_by_a_plugin():
    class Plugin:
        pipeline_grids = staticmethod(pipeline_grids)

    registry = Registry.of({"grids": Plugin()})
    assert set(registry.grids) == set(KINDS)
    assert all(isinstance(kind, GridKind) and kind.summary for kind in KINDS.values())
    for kind in KINDS.values():
        kind.check()
