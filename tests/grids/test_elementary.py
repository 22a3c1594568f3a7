"""Elementary functions against the libraries, and their independence of position."""

import numpy as np
import pytest
import torch

from pipeline.grids.elementary import log, normal_quantile, scaled_exp

RANDOM = np.random.default_rng(0)


def relative(found, expected):
    return np.max(np.abs(found - expected) / np.abs(expected))


def test_log():
    x = 10.0 ** RANDOM.uniform(-300, 300, 20_000)
    assert relative(log(x), np.log(x)) < 1e-15
    near_one = RANDOM.uniform(0.5, 2.0, 20_000)
    assert relative(log(near_one), np.log(near_one)) < 1e-15
    assert log(np.array([1.0, 5e-324])).tolist() == [0.0, pytest.approx(np.log(5e-324), rel=1e-15)]


def test_scaled_exp():
    t = RANDOM.uniform(-700, 700, 20_000)
    assert relative(scaled_exp(np.ones_like(t), t), np.exp(t)) < 1e-15
    assert scaled_exp(np.array([3.7]), np.zeros(1)).tolist() == [3.7]
    assert scaled_exp(np.array([1e-300]), np.array([1300.0]))[0] == pytest.approx(
        np.exp(1300.0 - 300.0 * np.log(10.0)), rel=1e-12
    )


def test_normal_quantile():
    u = np.concatenate([RANDOM.uniform(0.0, 1.0, 20_000), 2.0 ** -np.arange(2.0, 1000.0, 7.0)])
    found = normal_quantile(u)
    expected = torch.special.ndtri(torch.from_numpy(u)).numpy()
    assert np.max(np.abs(found - expected) / np.maximum(1.0, np.abs(expected))) < 2e-15


def test_normal_quantile_is_odd():
    u = (np.arange(1000) + 0.5) / 2048
    assert np.array_equal(normal_quantile(1.0 - u), -normal_quantile(u))
    assert normal_quantile(np.array([0.5])).tolist() == [0.0]


def test_the_ends_of_the_generator_are_finite():
    ends = np.array([0.5, 2.0**52 - 0.5]) * 2.0**-52
    assert 0.0 < ends[0] < ends[1] < 1.0
    assert np.all(np.abs(normal_quantile(ends)) < 8.3)


@pytest.mark.parametrize("function", [log, normal_quantile])
def test_bits_do_not_depend_on_position(function):
    u = RANDOM.uniform(0.0, 1.0, 999)
    whole = function(u)
    for start in (0, 1, 5, 13):
        for length in (1, 2, 3, 7, 16, 33):
            assert np.array_equal(
                function(u[start : start + length]), whole[start : start + length]
            )


def test_known_bits():
    """Frozen, so that another CPU or library is noticed."""
    u = np.array([0.001, 0.3, 0.9999999])
    assert [value.hex() for value in log(u)] == KNOWN_LOG
    assert [value.hex() for value in normal_quantile(u)] == KNOWN_QUANTILE
    assert [value.hex() for value in scaled_exp(np.ones(3), u)] == KNOWN_EXP


KNOWN_LOG = ["-0x1.ba18a998fffa0p+2", "-0x1.34378fcbda721p+0", "-0x1.ad7f2b1049ba0p-24"]
KNOWN_QUANTILE = ["-0x1.8b8cbb7204470p+1", "-0x1.0c7e39582c5fap-1", "0x1.4cc1f26b3355ap+2"]
KNOWN_EXP = ["0x1.0041919b7ee34p+0", "0x1.599058c8c1a96p+0", "0x1.5bf0a6698658dp+1"]
