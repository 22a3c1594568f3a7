"""Random points: distribution, independence, refusals."""

import math

import numpy as np
import pytest
import torch

from pipeline.errors import GridError
from pipeline.functions.record import AnySize
from pipeline.grids.kind import Space
from pipeline.grids.random_points import NormalGrid, UniformGrid, build_random
from pipeline.grids.streams import Stream

SPACE = Space(AnySize(3), -2.0, 3.0, seed=7)
COUNT = 40_000


def test_uniform_moments_and_range():
    grid = build_random(SPACE, COUNT, lower=[-2.0, 0.0, 5.0], upper=[3.0, 1.0, 5.5])
    assert isinstance(grid, UniformGrid)
    low, high = torch.tensor(grid.box.lower).double(), torch.tensor(grid.box.upper).double()
    unit = (grid[:] - low) / (high - low)
    assert bool(((unit >= 0) & (unit <= 1)).all())
    assert torch.allclose(unit.mean(0), torch.tensor(0.5).double(), atol=5 / math.sqrt(12 * COUNT))
    assert torch.allclose(unit.var(0), torch.tensor(1 / 12).double(), atol=5 * 0.075 / COUNT**0.5)


def test_uniform_fills_equal_cells_equally():
    unit = build_random(SPACE, COUNT, lower=0.0, upper=1.0, n=2)[:].numpy()
    seen = np.histogramdd(unit, bins=10, range=[(0, 1), (0, 1)])[0]
    chi_square = ((seen - COUNT / 100) ** 2 / (COUNT / 100)).sum()
    assert abs(chi_square - 99) < 5 * math.sqrt(2 * 99)


def test_normal_moments():
    grid = build_random(SPACE, COUNT, "normal", mean=[1.0, 0.0, -3.0], std=[2.0, 1.0, 0.1])
    assert isinstance(grid, NormalGrid)
    z = (grid[:] - torch.tensor(grid.mean).double()) / torch.tensor(grid.std).double()
    for power, (moment, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        error = (z**power).mean(0) - moment
        assert float(error.abs().max()) < 5 * math.sqrt(variance / COUNT)
    assert float((torch.corrcoef(z.T) - torch.eye(3)).abs().max()) < 5 / COUNT**0.5


def test_normal_probabilities_are_uniform():
    z = build_random(SPACE, COUNT, "normal", n=1)[:]
    u = torch.special.ndtr(z).sort(dim=0).values[:, 0]
    steps = torch.arange(1, COUNT + 1, dtype=torch.float64) / COUNT
    assert float((u - steps).abs().max()) < 2.0 / COUNT**0.5  # Kolmogorov-Smirnov


def test_zero_deviation_and_zero_width_pin_an_input():
    assert build_random(SPACE, 5, "normal", mean=1.5, std=[0.0, 1.0])[:][:, 0].tolist() == [1.5] * 5
    assert build_random(SPACE, 5, lower=[0.1, 0.0], upper=[0.1, 1.0])[:][:, 0].tolist() == [0.1] * 5


def test_the_widest_box_does_not_overflow():
    points = build_random(SPACE, 100, lower=-1.7e308, upper=1.7e308)[:]
    assert bool(points.isfinite().all())


def test_seeds_and_distributions_have_their_own_numbers():
    first = build_random(SPACE, 100)[:]
    assert torch.equal(first, build_random(SPACE, 100, seed=7)[:])
    assert not bool((first == build_random(SPACE, 100, seed=8)[:]).any())
    assert torch.equal(first[:50], build_random(SPACE, 50)[:])


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 1001, 10**9 + 1, 2**64 - 3, 3 * 2**63])
def test_a_stream_can_be_entered_anywhere(start):
    stream = Stream("test", 5)
    whole = stream.words(start, start + 41)
    for left in range(1, 10):
        assert np.array_equal(stream.words(start + left, start + 41), whole[left:])
        assert np.array_equal(stream.words(start, start + left), whole[:left])


def test_a_stream_is_the_library_s_own_sequence():
    stream = Stream("test", 5)
    words = np.random.Philox(key=stream._key).random_raw(1000)
    assert np.array_equal(stream.words(0, 1000), words)
    advanced = np.random.Philox(key=stream._key).advance(100).random_raw(40)
    assert np.array_equal(stream.words(400, 440), advanced)


@pytest.mark.parametrize("bits", [1, 23, 52])
def test_centred_numbers_never_reach_the_ends(bits):
    u = Stream("test", 5).centred(0, 5000, bits)
    assert u.min() >= 2.0 ** -(bits + 1)
    assert 1.0 - u.max() >= 2.0 ** -(bits + 1)


def test_known_points():
    """Frozen, so that a change of the numbers is noticed."""
    uniform = build_random(Space(2, 0.0, 1.0, seed=0), 2)[:]
    normal = build_random(Space(2, 0.0, 1.0, seed=0), 2, "normal")[:]
    assert [value.hex() for value in uniform.flatten().tolist()] == KNOWN_UNIFORM
    assert [value.hex() for value in normal.flatten().tolist()] == KNOWN_NORMAL


KNOWN_UNIFORM = [
    "0x1.3d67cd1cfadacp-3",
    "0x1.3524ab826b621p-1",
    "0x1.c22cc3ce882ebp-1",
    "0x1.90bc0594473f7p-1",
]
KNOWN_NORMAL = [
    "-0x1.2c42a26f5ac01p-3",
    "0x1.61d332b6760c3p-6",
    "-0x1.f56624d5b26f1p-2",
    "0x1.916a65be1681dp-1",
]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 1.0}, r"grid\.mean belongs to the normal distribution, .* is uniform; leave"),
        ({"std": [1.0, 2.0]}, r"grid\.std belongs to the normal .* set grid\.distribution=normal"),
        ({"distribution": "normal", "lower": 0.0}, r"grid\.lower belongs to the uniform"),
        ({"distribution": "normal", "upper": 0.0}, r"grid\.upper belongs to the uniform"),
        ({"distribution": "normal", "std": -1.0}, r"input 0: mean 0\.0 and standard deviation -1"),
        ({"distribution": "normal", "mean": math.inf}, r"mean inf .* give finite grid\.mean"),
        ({"distribution": "normal", "count": 0}, r"grid\.count is 0"),
        (
            {"distribution": "normal", "mean": [0.0, 0.0], "std": [1.0] * 3},
            r"grid\.std has 3 entries but grid\.mean has 2 entries; give 2 entries or one number",
        ),
    ],
)
def test_refused(options, message):
    with pytest.raises(GridError, match=message):
        build_random(SPACE, **options)
