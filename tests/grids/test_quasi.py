"""Sobol sequences against torch's engine, Latin hypercubes against their definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.quasirandom import SobolEngine

from pipeline.errors import GridError
from pipeline.functions.record import AnySize
from pipeline.grids.kind import Space
from pipeline.grids.permutation import ROUNDS, SMALL, permute
from pipeline.grids.quasi import build_latin_hypercube, build_sobol
from pipeline.grids.streams import Stream

UNIT = Space(AnySize(3), 0.0, 1.0, seed=4)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)  # SobolEngine rounds its first point to this type
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("scramble", [False, True])
@pytest.mark.parametrize("n", [1, 3, 40])
def test_sobol_is_what_the_engine_draws(n, scramble):
    grid = build_sobol(UNIT, 1000, scramble=scramble, n=n)
    expected = SobolEngine(n, scramble=scramble, seed=4).draw(1000, dtype=torch.float64)
    assert torch.equal(grid[:], expected)
    assert torch.equal(grid[333:777], expected[333:777])


@settings(max_examples=25, deadline=None)
@given(start=st.integers(1, 2**30 - 50), scramble=st.booleans())
def test_sobol_far_away_is_what_the_engine_draws(start, scramble):
    engine = SobolEngine(2, scramble=scramble, seed=4)
    engine.fast_forward(min(start, 10**6))  # the engine walks: keep its way short
    grid = build_sobol(UNIT, 2**30, scramble=scramble, n=2)
    near = min(start, 10**6)
    assert torch.equal(grid[near : near + 40], engine.draw(40, dtype=torch.float64))


@pytest.mark.parametrize("start", [0, 2**20 * 3, 2**30 - 64])
def test_aligned_blocks_are_balanced(start):
    """Every aligned block of 2^k points has one point in each of 2^k equal intervals."""
    block = build_sobol(UNIT, 2**30)[start : start + 64]
    for column in block.T:
        assert (column * 64).floor().long().sort().values.tolist() == list(range(64))


def test_sobol_fills_the_box():
    grid = build_sobol(UNIT, 256, [-2.0, 0.0], [2.0, 10.0], scramble=False)
    assert grid[:1].tolist() == [[-2.0, 0.0]]
    assert grid[1:2].tolist() == [[0.0, 5.0]]
    assert grid.spec["seed"] is None


def test_sobol_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    build_sobol(UNIT, 10)[:]
    assert torch.equal(before, torch.get_rng_state())


def test_sobol_limits():
    with pytest.raises(
        GridError, match=r"at most 2\^30 points here, give fewer or use grid=random"
    ):
        build_sobol(UNIT, 2**30 + 1)
    with pytest.raises(GridError, match=r"n = 21202 inputs; .* at most 21201, use grid=random"):
        build_sobol(UNIT, 10, n=21202)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, SMALL, SMALL + 1, 10_007])
@pytest.mark.parametrize("seed", [0, 1])
def test_one_point_in_each_stratum_of_each_input(count, seed):
    unit = build_latin_hypercube(UNIT, count, seed=seed)[:]
    strata = (unit * count).floor().long()
    expected = torch.arange(count)
    for column in strata.T:
        assert torch.equal(column.sort().values, expected)


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 2**48 - 200))
def test_points_of_the_largest_hypercube_are_inside_their_strata(start):
    count = 2**48
    unit = build_latin_hypercube(UNIT, count, n=1)[start : start + 200]
    keys = Stream("latin_hypercube strata", 4).words(0, ROUNDS)
    strata = permute(np.arange(start, start + 200, dtype=np.uint64), count, keys)
    assert np.array_equal(np.floor(unit[:, 0].numpy() * count), strata.astype(float))


def test_inputs_are_uncorrelated_and_positions_uniform():
    count = 20_000
    unit = build_latin_hypercube(UNIT, count, n=4)[:]
    index = torch.arange(count, dtype=torch.float64)[None]
    correlation = torch.corrcoef(torch.cat([unit.T, index])) - torch.eye(5)
    assert float(correlation.abs().max()) < 5 / math.sqrt(count)
    position = (unit * count).frac()
    assert torch.allclose(
        position.mean(0), torch.tensor(0.5).double(), atol=5 / (12 * count) ** 0.5
    )


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_orders_of_few_elements_are_equally_likely(size):
    index = np.arange(size, dtype=np.uint64)
    orders: dict[tuple[int, ...], int] = {}
    trials = 3000
    for seed in range(trials):
        order = tuple(permute(index, size, Stream("test", seed).words(0, ROUNDS)).tolist())
        orders[order] = orders.get(order, 0) + 1
    cells = math.factorial(size)
    expected = trials / cells
    chi_square = sum((seen - expected) ** 2 / expected for seen in orders.values())
    assert len(orders) == cells
    assert chi_square < cells - 1 + 5 * math.sqrt(2 * cells)


def test_pairs_of_images_are_uniform():
    size, trials = SMALL + 804, 4_000
    pair = np.arange(2, dtype=np.uint64)
    keys = [Stream("test", seed).words(0, ROUNDS) for seed in range(trials)]
    images = np.array([permute(pair, size, key) for key in keys], dtype=float)
    seen = np.histogramdd(images, bins=10, range=[(0, size), (0, size)])[0]
    chi_square = ((seen - trials / 100) ** 2 / (trials / 100)).sum()
    assert abs(chi_square - 99) < 5 * math.sqrt(2 * 99)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 20_000), key=st.integers(0, 2**64 - 1))
def test_a_permutation_is_one(size, key):
    keys = np.array([key, key ^ 1, 5, 9], dtype=np.uint64)
    image = permute(np.arange(size, dtype=np.uint64), size, keys)
    assert np.array_equal(np.sort(image), np.arange(size))


def test_hypercube_limit():
    with pytest.raises(
        GridError, match=r"at most 2\^48 strata per input, give fewer or use grid=r"
    ):
        build_latin_hypercube(UNIT, 2**48 + 1)
