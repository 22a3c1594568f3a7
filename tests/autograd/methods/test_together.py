"""Oracles evaluate at many places in one call where they can, and believe nothing because of it."""

import pytest
import torch
from support.custom_functions import WrongBackward

from pipeline.autograd.checks.conditioning import noises_above, sensitivities
from pipeline.autograd.checks.effort import fits_together
from pipeline.autograd.checks.finite_difference import compare_with_finite_differences
from pipeline.autograd.checks.view import View
from pipeline.autograd.methods.together import Places, Views, directional_values, whole_levels
from pipeline.autograd.reference import derivatives, directional_value
from pipeline.autograd.request import Request

POINTS = torch.linspace(0.3, 1.7, 15, dtype=torch.float64).reshape(5, 3)
WIDE = 1 << 10


def request(f, order=2):
    return Request(f, POINTS[0], tuple(f(POINTS[0]).shape), tuple(range(order + 1)))


def smooth(x):
    return (x.sin() * x.flip(0) ** 3).cumsum(0)


def branching(x):
    return smooth(x) if x[0] > -1 else x


def other_in_batches(x):
    is_batched = torch._C._functorch.is_batchedtensor(x)
    return smooth(x) * (1 + 1e-9 * torch.sin(1e9 * x)) if is_batched else smooth(x)


def counted(f):
    calls = []

    def counting(x):
        calls.append(x)
        return f(x)

    return counting, calls


@pytest.mark.parametrize("width", [2, 3, WIDE])
def test_every_place_has_its_own_number(width):
    asked, places = request(smooth), Places(POINTS, POINTS + 0.1)
    weights, vectors = POINTS - 1, (POINTS.flip(0), POINTS.flip(1))
    for order in range(3):
        views = Views(weights, vectors[:order])
        found = directional_values(asked, places, views, width)
        lines = zip(places.z, weights, *vectors[:order], strict=True)
        expected = [float(directional_value(smooth, z, w, v)) for z, w, *v in lines]
        assert found == pytest.approx(expected, rel=1e-13)
    for level, each in enumerate(whole_levels(asked, places, width)):
        one_by_one = torch.stack([derivatives(smooth, z, 2)[level] for z in places.z])
        torch.testing.assert_close(each, one_by_one, rtol=1e-13, atol=1e-13)


def test_what_branches_is_evaluated_one_by_one():
    places = Places(POINTS, POINTS)
    assert directional_values(request(branching), places, Views(POINTS), WIDE) is None
    assert whole_levels(request(branching), places, WIDE) is None


def test_thousands_of_calls_become_few():
    plain, calls = counted(smooth)
    asked = request(plain)
    calls.clear()
    alone = compare_with_finite_differences(asked, POINTS)
    many = len(calls)
    calls.clear()
    together = compare_with_finite_differences(asked, POINTS, WIDE)
    # per point one for the sizes, and per order one by the reference; per order one for all steps
    assert len(calls) == 5 + 5 * 2 + 2
    assert many > 100
    assert (together.checks, together.disagreements) == (alone.checks, ()) == (10, ())
    assert together.residual < 1e-9


@pytest.mark.parametrize("f", [branching, other_in_batches])
def test_where_a_batch_fails_or_says_something_else_places_are_evaluated_alone(f):
    asked, alone = request(f), compare_with_finite_differences(request(smooth), POINTS)
    found = compare_with_finite_differences(asked, POINTS, WIDE)
    assert (found.checks, found.unchecked, found.disagreements) == (alone.checks, (), ())
    view = View(asked, None, ())
    expected = [view.reference(point) for point in POINTS]
    seen = sensitivities(view, POINTS, expected, WIDE)
    assert seen == sensitivities(view, POINTS, expected, 1)
    assert max(noises_above(1e-13, view, POINTS, expected, WIDE)) == 0.0


def test_a_wrong_backward_pass_is_found_all_the_same():
    asked = request(WrongBackward.apply, order=1)
    found = compare_with_finite_differences(asked, POINTS, WIDE)
    assert len(found.disagreements) == 5
    assert found.residual == pytest.approx(1 / 3, rel=1e-3)


def test_conditions_are_those_of_the_places():
    asked = request(smooth)
    view = View(asked, None, ())
    expected = [view.reference(point) for point in POINTS]
    together, alone = (sensitivities(view, POINTS, expected, width) for width in (WIDE, 1))
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), rtol=1e-4, atol=1e-6)


def test_noise_is_found_in_a_batch_as_well():
    def narrow(x):
        return smooth(x.float()).double()

    view = View(request(narrow), None, ())
    expected = [view.reference(point) for point in POINTS]
    found = max(noises_above(1e-13, view, POINTS, expected, WIDE))
    assert 1e-9 < found < 1e-6
    assert found == pytest.approx(max(noises_above(1e-13, view, POINTS, expected, 1)), rel=1)


def test_values_that_become_text_are_never_those_of_a_batch():
    def spelled(x):
        return smooth(x) * len(str(float(x[0].detach())))

    assert fits_together(request(smooth)) > 1
    assert fits_together(Request(spelled, POINTS[0], (3,), (0, 1), text="repr")) == 1
