"""The number of inputs, bounds, counts and seeds: what is settled and what is refused."""

import math

import pytest

from pipeline.errors import GridError
from pipeline.functions.record import AnySize
from pipeline.grids.builtin import pipeline_grids
from pipeline.grids.kind import Space

KINDS = {kind.name: kind for kind in pipeline_grids()}
FIXED = Space(2, -1.0, (1.0, 2.0))
ANY = Space(AnySize(3), -1.0, 1.0)


def build(name, space=FIXED, **options):
    return KINDS[name].build(space, **options)


@pytest.mark.parametrize("name", ["linspace", "random", "sobol", "latin_hypercube"])
def test_who_chooses_n(name):
    assert build(name).n == 2
    assert build(name, ANY).n == 3
    assert build(name, ANY, n=2).n == 2
    assert build(name, ANY, lower=[-1.0, 0.0]).n == 2
    assert build(name, ANY, lower=[-1.0, 0.0], upper=[1.0, 1.0], n=2).n == 2


def test_the_domain_is_the_default_box():
    assert build("random").spec["lower"] == [-1.0, -1.0]
    assert build("random").spec["upper"] == [1.0, 2.0]
    assert build("linspace", upper=5.0).spec["upper"] == [5.0, 5.0]
    assert build("sobol", count=1, lower=3.0, upper=3.0)[:].tolist() == [[3.0, 3.0]]


CONFLICTS = [
    (
        FIXED,
        {"lower": [0.0, 0.0, 0.0]},
        "grid.lower has 3 entries but the function takes n = 2 inputs; give 2 entries or one number",
    ),
    (FIXED, {"n": 3}, "grid.n is 3 but the function takes n = 2 inputs; set it to 2 or leave it"),
    (ANY, {"n": 2, "upper": [1.0, 1.0, 1.0]}, "grid.upper has 3 entries but grid.n is 2; give 2"),
    (ANY, {"lower": [0.0], "upper": [1.0, 1.0]}, "grid.upper has 2 entries but grid.lower has 1"),
    (ANY, {"n": 0}, "grid.n is 0; a point has at least one input"),
    (ANY, {"lower": []}, "grid.lower has 0 entries; a point has at least one input"),
    (
        Space(AnySize(3), (0.0, 0.0), 1.0),
        {},
        "the lower end of the function's domain has 2 entries but the grid has n = 3 inputs; "
        "give grid.lower",
    ),
    (FIXED, {"lower": 1.5}, "input 0: the lower end 1.5 is above the upper end 1.0; give"),
    (FIXED, {"upper": [1.0, -2.0]}, "input 1: the lower end -1.0 is above the upper end -2.0"),
    (FIXED, {"upper": math.inf}, "input 0: the bounds -1.0 … inf are not finite; give finite"),
    (FIXED, {"lower": math.nan}, "input 0: the bounds nan … 1.0 are not finite"),
    (FIXED, {"count": 0}, "a grid needs at least one point, grid.count is 0; give 1 or more"),
    (FIXED, {"count": -5}, "a grid needs at least one point, grid.count is -5"),
    (FIXED, {"count": 2**63}, "grid.count is 9223372036854775808"),
]


@pytest.mark.parametrize("name", ["linspace", "random", "sobol", "latin_hypercube"])
@pytest.mark.parametrize(("space", "options", "message"), CONFLICTS)
def test_conflicts_are_refused(name, space, options, message):
    with pytest.raises(GridError) as caught:
        build(name, space, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["random", "sobol", "latin_hypercube"])
def test_seeds_out_of_range_are_refused(name):
    with pytest.raises(GridError, match=r"grid\.seed is -1; expected 0 … 2\^63 - 1"):
        build(name, seed=-1)
    with pytest.raises(GridError, match=r"^seed is 9223372036854775808; expected"):
        build(name, Space(2, seed=2**63))
