"""Every built-in function passes the conformance kit; one without a row here fails."""

import pytest
import torch

import pipeline
from pipeline.registry import build_registry
from pipeline.testing import FunctionTests

ROWS = {
    "ackley": {"n": 3},
    "arrow": {"n": 5},
    "beale": {},
    "black_scholes": {},
    "brusselator": {"n": 18, "order": 1},
    "burgers": {"n": 6},
    "double_pendulum": {},
    "griewank": {"n": 3},
    "helical_valley": {},
    "himmelblau": {},
    "lennard_jones": {"parameters": {"atoms": 3}},
    "mlp": {"parameters": {"inputs": 3, "hidden": 5}},
    "morse": {"parameters": {"atoms": 3}},
    "powell_singular": {"n": 8},
    "rastrigin": {"n": 3},
    "reaction_network": {"n": 7},
    "robertson": {},
    "robot_arm": {},
    "rosenbrock": {"n": 5},
    "styblinski_tang": {"n": 3},
    "weighted_squares": {"n": 5},
    "wood": {},
}

for _name, _row in ROWS.items():
    _class = f"Test{_name.title().replace('_', '')}"
    globals()[_class] = type(_class, (FunctionTests,), {"function": _name, **_row})


def test_every_function_has_a_row():
    builtin = set(build_registry().functions)
    assert builtin == set(ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("route", ["scalar", "compiled"])
@pytest.mark.parametrize("name", ROWS)
def test_every_function_through_every_compiler(name, route):
    case = type("Case", (FunctionTests,), {"function": name, **ROWS[name]})()
    operators = case._operators()
    if name == "reaction_network" and route == "compiled":  # Inductor fails on its index_add
        with pytest.raises(pipeline.PipelineError, match="compiled .*refused: .*Inductor"):
            pipeline.prepare(case.bound.f, case.points, operators, route=route)
        return
    evaluator = pipeline.prepare(case.bound.f, case.points, operators, route=route)
    assert evaluator.plan.route == route
    expected = pipeline.prepare(case.bound.f, case.points, operators, route="loop")(case.points)
    for dataset, tensor in evaluator(case.points).items():
        scale = float(expected[dataset].abs().max())
        torch.testing.assert_close(tensor, expected[dataset], rtol=1e-9, atol=1e-11 * scale)
