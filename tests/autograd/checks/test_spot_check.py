"""Rows compared after they have been computed: what no probe point shows."""

import math

import pytest
import torch

import pipeline
from pipeline import open_results
from pipeline.autograd.checks.spot_check import UNCHECKED, spot_check
from pipeline.autograd.operators import Operator
from pipeline.autograd.request import Request
from pipeline.errors import DisagreementError

N = 1000
LINE = torch.linspace(0.1, 2.0, N, dtype=torch.float64).reshape(N, 1)
PROBES = LINE[[0, 381, 500, 723, 999]].flatten()  # where planning looks


class Treacherous(torch.autograd.Function):
    """x³ whose batching rule is right at the probe points only."""

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g

    @staticmethod
    def vmap(info, in_dims, x):
        known = (x.reshape(-1, 1) == PROBES).any(dim=1).reshape(x.shape)
        return torch.where(known, x**3, 2 * x**3), in_dims[0]


def treacherous(x):
    return Treacherous.apply(x).sum()


def everywhere(x):
    return (torch.sin(x) * x).sum() + x.prod()


@pytest.mark.parametrize("operators", ["value", ["value", "gradient"]])
def test_a_route_that_is_wrong_beside_the_probes_is_found(tmp_path, operators):
    options = {"route": "vmap", "output_dir": tmp_path, "shard_rows": 100}
    with pytest.raises(
        DisagreementError, match=r"points 0 to 99: value differs .* by 1.0e\+00 relative"
    ):
        pipeline.run(treacherous, LINE, operators, **options)
    assert not list(tmp_path.rglob("*.h5"))
    with pytest.raises(DisagreementError, match="value differs"):
        pipeline.evaluate(treacherous, LINE, operators, route="vmap")


def test_what_is_let_pass_is_written_down(tmp_path, caplog):
    options = {"route": "vmap", "output_dir": tmp_path, "on_disagreement": "warn"}
    with pipeline.run(treacherous, LINE, "value", **options) as stored:
        assert "value differs" in stored.certificate["disagreements"]
    assert "disagreement let pass: points 0 to 999" in caplog.text


def test_every_shard_carries_its_own_evidence(tmp_path):
    stored = pipeline.run(everywhere, LINE.repeat(1, 3), "all", output_dir=tmp_path, shard_rows=300)
    shards = sorted(stored.path.parent.glob("shards/*.h5"))
    assert len(shards) == 4
    for shard in shards:
        with open_results(shard) as part:
            assert part.certificate["rows_checked"] == 1
            assert '"hessian": ' in part.certificate["rows_error"]
    evaluation = pipeline.evaluate(everywhere, LINE.repeat(1, 3), "hessian")
    assert evaluation.certificate.rows_checked == 1
    assert evaluation.certificate.rows_error["hessian"] < 1e-12


def test_points_without_a_derivative_are_no_evidence():
    evaluation = pipeline.evaluate(
        lambda x: torch.sqrt(x).sum(), torch.zeros(5, 2).double(), "gradient"
    )
    assert evaluation.status.tolist() == [2] * 5
    assert evaluation.certificate.rows_checked == 0
    assert UNCHECKED.added_to(evaluation.certificate) is evaluation.certificate


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_every_single_wrong_entry_is_seen(order, shape):
    def f(x):
        value = torch.exp(x[0] * x[1]) + x[2] ** 4 * x[0]
        return torch.stack([value, torch.cos(x).sum()]) if shape else value

    point = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
    request = Request(f, point, shape, (order,))
    operator = Operator("asked", order)
    g = f
    for _ in range(order):
        g = torch.func.jacfwd(g)
    right = g(point).detach().contiguous()
    assert spot_check(request, (operator,), point, {"asked": right}, 7).disagreements == ()
    for entry in range(right.numel()):
        wrong = right.clone()
        wrong.view(-1)[entry] += 1e-4
        assert spot_check(request, (operator,), point, {"asked": wrong}, 7).disagreements


def test_a_reference_that_raises_is_a_disagreement():
    def only_batched(x):
        if x.sum() > 0:
            raise ValueError("not here")
        return x.sum()

    point = torch.ones(2, dtype=torch.float64)
    check = spot_check(
        Request(only_batched, point, (), (0,)), (Operator("value", 0),), point,
        {"value": torch.tensor(2.0)}, 0,
    )  # fmt: skip
    assert check.error == {"value": math.inf}
    assert "not here" in check.disagreements[0]
