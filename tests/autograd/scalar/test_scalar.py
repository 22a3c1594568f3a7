"""Route `scalar`: every operation against torch's own reverse mode, at ordinary and special points."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.nn import functional

from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.routes import ROUTES
from pipeline.autograd.routes.scalar import derive
from pipeline.autograd.scalar.expand import expand
from pipeline.autograd.scalar.operations import OPERATIONS

WEIGHTS = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
SQUARE = torch.linspace(0.5, 2, 9, dtype=torch.float64).reshape(3, 3)


def inplace(x):
    y = torch.zeros(4, dtype=x.dtype)
    y[0] = x[0] * x[1]
    y[1:3] += x[1:] ** 2
    y[3] = x[0] * x[2].exp()
    return y.mul_(2).sin()


def by_mask(x):
    y = x.clone()
    y[torch.tensor([True, False, True])] = x[1] * x[:1].exp()
    return y * x


def pairs(x):
    i, j = torch.triu_indices(3, 3, 1)
    return (x[i] - x[j]).abs().pow(1.5)


AT = torch.tensor([1, 1, 0])
ARITHMETIC = {
    "add": lambda x: x + x.flip(0) * 2,
    "add_alpha": lambda x: torch.add(x, x.exp(), alpha=3),
    "sub": lambda x: 1 - x * x[0],
    "sub_alpha": lambda x: torch.sub(x.exp(), x, alpha=0.5),
    "mul": lambda x: x * x.roll(1),
    "neg": lambda x: -x * x,
    "div": lambda x: x / x.flip(0),
    "div_constant": lambda x: x * x / 3,
    "divided_zero": lambda x: torch.zeros(3, dtype=x.dtype) / x + x,
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "cube": lambda x: x**3,
    "pow_4": lambda x: x**4,
    "pow_-2": lambda x: x**-2,
    "pow_half": lambda x: x**0.5,
    "pow_2.5": lambda x: x**2.5,
    "pow_tensor": lambda x: x.abs() ** x.flip(0),
    "pow_base": lambda x: 2**x,
    "float_power": lambda x: torch.float_power(x, 3),
    "zero_times": lambda x: torch.tensor([0.0, 1.0, 2.0], dtype=x.dtype) * x**2,
    "zero_times_log": lambda x: 0.0 * x.log() + x,
    "addcmul": lambda x: torch.addcmul(x, x, x.exp(), value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x.exp(), x, value=0.5),
    "lerp": lambda x: torch.lerp(x, x.exp(), 0.3),
    "xlogy": lambda x: torch.xlogy(x, x.flip(0)),
    "hypot": lambda x: torch.hypot(x, x.flip(0) + 1),
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(0)),
    "fmod": lambda x: torch.fmod(x, 0.7) * x,
    "remainder": lambda x: torch.remainder(x, 0.7) * x,
    "copysign": lambda x: torch.copysign(x * x, x.flip(0)),
}
UNARY_NAMES = """
    abs acos asin asinh atan atanh ceil cos cosh deg2rad erf erfc exp exp2 expm1
    floor frac log log10 log1p log2 rad2deg round rsqrt sigmoid sign sin sinc sinh sqrt tan tanh
    trunc
"""
UNARY = {name: getattr(torch, name) for name in UNARY_NAMES.split()} | {
    "atan2": lambda x: torch.atan2(x, x.flip(0) + 0.1),
    "acosh": lambda x: torch.acosh(x + 1),
    "norm_cdf": torch.special.ndtr,
    "logit": lambda x: torch.logit(x / 3),
}
ACTIVATION_NAMES = """
    celu elu gelu hardshrink hardswish hardtanh leaky_relu logsigmoid mish
    relu relu6 silu softplus softshrink softsign tanhshrink
"""
ACTIVATIONS = {name: getattr(functional, name) for name in ACTIVATION_NAMES.split()} | {
    "selu_kink": functional.selu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "threshold": lambda x: functional.threshold(x, 0.1, -1.0) * x,
    "softmax": lambda x: torch.softmax(x, 0),
    "log_softmax": lambda x: torch.log_softmax(x * x, 0),
    "layer_norm": lambda x: functional.layer_norm(x * x, (3,)),
    "huber": lambda x: functional.huber_loss(x, torch.zeros(3, dtype=x.dtype), delta=0.5),
    "smooth_l1": lambda x: functional.smooth_l1_loss(x, torch.zeros(3, dtype=x.dtype)),
    "mse": lambda x: functional.mse_loss(x, x.flip(0).exp()),
    "linear": lambda x: torch.tanh(functional.linear(x, WEIGHTS.to(x), WEIGHTS[:, 0].to(x))),
    "batched_linear": lambda x: torch.tanh(functional.linear(x[None], WEIGHTS.to(x)))[0],
}
CHOICES = {
    "where": lambda x: torch.where(x > 0.4, x**2, x.sin()),
    "where_number": lambda x: torch.where(x > x.flip(0), x**2, 0.0),
    "where_and": lambda x: torch.where((x > 0) & (x < 1) | ~(x != 2), x * x, -x),
    "where_bool": lambda x: torch.where(x.bool(), x.sin() / torch.where(x == 0, 1.0, x), 1.0),
    "where_bool_sign": lambda x: torch.where((x - 0.5).relu().bool(), x**2, x.sin()),
    "where_sqrt": lambda x: torch.where(x > 0, x, 1.0).sqrt(),
    "guarded_badly": lambda x: torch.where(x > 0, x.sqrt(), 0.0),
    "clamp": lambda x: x.clamp(0.2, 1.5) ** 2,
    "clamp_min": lambda x: x.clamp(min=0.3) * x,
    "clamp_max": lambda x: x.clamp(max=0.3) * x,
    "maximum": lambda x: torch.maximum(x, x.flip(0)) * x,
    "minimum": lambda x: torch.minimum(x * x, x),
    "amax": lambda x: x.amax() * x[0],
    "amin": lambda x: (x * x).amin(),
    "max": lambda x: x.max() ** 2,
    "min": lambda x: (x * x[0]).min() ** 2,
    "masked_fill": lambda x: (x * x).masked_fill(x < 0.5, 0.3) * x,
    "mask_as_number": lambda x: (x > 0.2) * x**2,
    "nan_to_num": lambda x: torch.nan_to_num(x * x),
    "detach": lambda x: x * x.detach(),
    "data": lambda x: x * x.data,
}
SHAPES = {
    "view": lambda x: (x.reshape(3, 1) * x.reshape(1, 3)).flatten(),
    "slices": lambda x: x[1:] * x[:-1] ** 2,
    "cat": lambda x: torch.cat([x * x, x[:1].exp()]),
    "stack": lambda x: torch.stack([x[0] * x[1], x[2].sin()]),
    "index": lambda x: x[torch.tensor([0, 2, 2, 1])] * x[0],
    "gather": lambda x: torch.gather(x * x, 0, torch.tensor([2, 0])),
    "triu": lambda x: torch.triu(torch.outer(x, x * x)).flatten(),
    "diag": lambda x: torch.diag(x * x).flatten(),
    "trace": lambda x: torch.trace(torch.outer(x, x.exp())),
    "pad": lambda x: functional.pad(x * x, (1, 2), value=0.5),
    "repeat": lambda x: x.repeat(2) * x[0],
    "meshgrid": lambda x: torch.stack(torch.meshgrid(x, x * x, indexing="ij")).prod(0).flatten(),
    "inplace": inplace,
    "by_mask": by_mask,
    "pairs": pairs,
    "index_add": lambda x: torch.zeros_like(x).index_add(0, AT, x**2, alpha=-2) * x,
    "index_add_rows": lambda x: (
        torch.outer(x, x).index_add(1, AT, torch.outer(x, x**2).expand(3, 3)).flatten()
    ),
    "masked_select": lambda x: torch.masked_select(x * x, AT == 1) * x[2],
    "index_put": lambda x: (x * x).index_put((AT[1:],), x[1:].exp()),
    "index_put_added": lambda x: (x * x).index_put((AT,), x.exp(), accumulate=True) * x,
    "index_put_number": lambda x: torch.outer(x, x).index_put((AT[:1], AT), x[0], accumulate=True)[
        1
    ],
    "index_copy": lambda x: (x * x).index_copy(0, AT[1:], x[1:].exp()) * x,
    "scatter": lambda x: (x * x).scatter(0, AT[1:], x[1:].exp()) * x,
    "scatter_number": lambda x: (x * x).scatter(0, AT[1:], 0.5) * x,
    "scatter_add": lambda x: (x * x).scatter_add(0, AT, x.exp()) * x,
    "scatter_add_part": lambda x: torch.outer(x, x).scatter_add(1, AT[None], torch.outer(x, x)[:1])[
        0
    ],
    "scatter_sum": lambda x: (x * x).scatter_reduce(0, AT, x.exp(), "sum") * x,
    "scatter_prod": lambda x: (x * x).scatter_reduce(0, AT, x.exp(), "prod") * x,
    "index_depends": lambda x: (x * x).index_add(0, (x > 0.5).long(), x),
    "cross": lambda x: torch.linalg.cross(x, x.flip(0) * x),
    "loop": lambda x: torch.stack([x[i] ** (i + 1) for i in range(3)]),
}
REDUCTIONS = {
    "sum": lambda x: (x * x.flip(0)).sum(),
    "sum_dim": lambda x: torch.outer(x, x * x).sum(1),
    "sum_keepdim": lambda x: x / (x * x).sum(-1, keepdim=True),
    "mean": lambda x: (x**3).mean(),
    "prod": lambda x: x.prod(),
    "prod_dim": lambda x: torch.outer(x, x).prod(0),
    "cumsum": lambda x: torch.cumsum(x * x, 0),
    "cumprod": lambda x: torch.cumprod(x, 0),
    "var": lambda x: (x * x).var(),
    "std": lambda x: (x * x).std(),
    "norm": lambda x: x.norm(),
    "norm_1": lambda x: torch.linalg.vector_norm(x, 1) * x[0],
    "norm_3": lambda x: torch.linalg.vector_norm(x, 3),
    "norm_inf": lambda x: torch.linalg.vector_norm(x, float("inf")) * x[0],
    "logsumexp": lambda x: torch.logsumexp(x * x, 0),
    "dot": lambda x: torch.dot(x, x.exp()),
    "mv": lambda x: SQUARE.to(x) @ x.sin(),
    "mm": lambda x: (torch.outer(x, x) @ SQUARE.to(x)).flatten(),
    "bmm": lambda x: torch.bmm(torch.outer(x, x)[None], SQUARE.to(x)[None]).flatten(),
    "addmm": lambda x: torch.addmm(
        torch.outer(x, x), SQUARE.to(x), torch.outer(x, x), beta=2
    ).sum(),
    "einsum": lambda x: torch.einsum("i,ij,j->", x, SQUARE.to(x), x.exp()),
    "det": lambda x: torch.linalg.det(torch.outer(x, x.exp()) + torch.diag(x)),
    "cdist": lambda x: torch.cdist(x[:, None], x[:, None] ** 2).sum(),
    "dist": lambda x: torch.dist(x, x.exp()),
    "conv": lambda x: functional.conv1d((x * x)[None, None], SQUARE[:1, None, :2].to(x)).flatten(),
}
ALL = ARITHMETIC | UNARY | ACTIVATIONS | CHOICES | SHAPES | REDUCTIONS
REFUSED = {
    "scatter_prod",
    "index_depends",
    "detach",
    "selu_kink",
    "data",
    "fmod",
    "remainder",
    "copysign",
    "det",
    "cdist",
    "conv",
}
ORDINARY = torch.tensor([[0.31, 0.73, 0.52], [0.9, 0.11, 0.43], [0.2, 0.21, 0.65]]).double()
LARGE = torch.tensor([[1.3, 2.7, 1.9], [-0.6, 2.0, -1.7]]).double()
SPECIAL = torch.tensor(
    list(product([0.0, -0.0, 1.0, -2.0, float("inf"), float("nan")], repeat=3))
).double()


def request(f, order, example=ORDINARY[0]):
    return Request(f, example, tuple(f(example).shape), tuple(range(order + 1)))


def interpret(program, points):
    """Calculate a program by torch, an operation after the other."""
    dag, values = program.dag, {}
    for node in program.nodes:
        name, args = dag.nodes[node]
        if dag.value(node) is not None:
            kind = torch.bool if isinstance(dag.value(node), bool) else points.dtype
            values[node] = torch.full((len(points),), dag.value(node), dtype=kind)
        elif name == "input":
            values[node] = points[:, args[0]]
        else:
            values[node] = OPERATIONS[name].torch(*(values[arg] for arg in args))
    flags = sum((values[node] * 0 for node in program.watched), torch.zeros(len(points)))
    levels = []
    for level in program.levels:
        columns = [
            values[node]
            if dag.value(node) is None
            else points.new_full(points.shape[:1], dag.value(node))
            for node in level.reshape(-1).tolist()
        ]
        levels.append(torch.stack(columns, 1).reshape(len(points), *level.shape))
    return levels, flags.isnan()


def reference(f, points, order):
    rows = [derivatives(f, point, order) for point in points]
    return [torch.stack([row[j] for row in rows]) for j in range(order + 1)]


def assert_equal(seen, expected, dtype=torch.float64):
    tolerance = 1e-11 if dtype == torch.float64 else 2e-4
    for mine, true in zip(seen, expected, strict=True):
        scale = true.nan_to_num(0, 0, 0).abs().amax().clamp_min(1)
        torch.testing.assert_close(
            mine, true, rtol=tolerance, atol=float(tolerance * scale), equal_nan=True
        )


@pytest.mark.parametrize("name", ALL)
def test_derivation_equals_reverse_mode(name):
    f = ALL[name]
    if name in REFUSED:
        with pytest.raises(RefusedError):
            derive(request(f, 2))
        return
    program = derive(request(f, 2))
    for points in (ORDINARY, LARGE, SPECIAL):
        levels, flagged = interpret(program, points)
        sure = ~flagged
        assert bool(sure.all()) or points is not ORDINARY
        if sure.any():
            assert_equal([level[sure] for level in levels], reference(f, points[sure], 2))


@pytest.mark.parametrize("name", ["double_well", "ratio", "powers"])
def test_third_order_derivation(name):
    f = {
        "double_well": lambda x: ((x**2 - 1) ** 2).sum() + x.prod(),
        "ratio": lambda x: x / (1 + (x * x).sum()),
        "powers": lambda x: x[0] ** x[1] * torch.atan2(x[2], x[0]),
    }[name]
    levels, flagged = interpret(derive(request(f, 3)), ORDINARY)
    assert not flagged.any()
    assert_equal(levels, reference(f, ORDINARY, 3))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("table", [ARITHMETIC, UNARY, ACTIVATIONS, CHOICES, SHAPES, REDUCTIONS])
def test_compiled_kernel_equals_reverse_mode(table, dtype):
    functions = [function for name, function in table.items() if name not in REFUSED]
    if dtype == torch.float32:
        functions = [f for f in functions if f(ORDINARY[0].to(dtype)).dtype == dtype]

    def all_of_them(x):
        return torch.cat([function(x).reshape(-1) for function in functions])

    points = torch.cat([ORDINARY, LARGE, SPECIAL[:8]] * 3)[:37].to(dtype)
    evaluate = ROUTES["scalar"].prepare(request(all_of_them, 1, points[0]), "rev", 1, 64)
    expected = reference(all_of_them, points, 1)
    assert_equal(evaluate(points), expected, dtype)
    # beside infinity torch's sines reduce their arguments in another way, in the last bit
    one_by_one = [evaluate(point[None]) for point in ORDINARY.to(dtype)]
    together = evaluate(ORDINARY.to(dtype))
    for level, rows in zip(together, zip(*one_by_one, strict=True), strict=True):
        assert torch.equal(level, torch.cat(rows))


class Straight(torch.autograd.Function):
    """Rounds, with a derivative of its own."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g


def under_no_grad(x):
    with torch.no_grad():
        scale = x.norm()
    return x / scale


def branches(x):
    return x * x if x[0] > 0 else x


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (Straight.apply, "backward pass of its own: StraightBackward"),
        (under_no_grad, "stops gradients by no_grad"),
        (branches, "data-dependent"),
        (lambda x: x * torch.rand(3), "random"),
        (lambda x: x.to(torch.float32).double() ** 2, "calculates in torch.float32"),
        (lambda x: torch.fft.fft(x).real, "not known"),
        (lambda x: torch.linalg.inv(torch.outer(x, x) + torch.eye(3)).sum(), "not known"),
        (lambda x: torch.sin(torch.arange(50_000) * x[0]).sum(), "scalar operations"),
        (lambda x: x.repeat(200_000), "distinct entries"),
    ],
    ids=[
        "custom",
        "no_grad",
        "branches",
        "random",
        "float32",
        "complex",
        "inv",
        "nodes",
        "entries",
    ],
)
def test_is_refused(f, reason):
    with pytest.raises((RefusedError, RuntimeError), match=reason):
        derive(request(f, 2))


def test_what_a_constant_multiplies_or_divides_is_not_looked_at():
    """Torch takes no derivative with respect to constants, in which the operand would stand."""
    factors = torch.tensor([3.0, -7.0], dtype=torch.float64)

    def f(x):
        return (x * factors / 7 - 2.5 * x).sum()

    program = derive(replace(request(f, 1, torch.ones(2).double()), orders=(1,)))
    assert [node for node in program.watched if program.dag.value(node) is None] == []
    point = torch.tensor([math.inf, math.nan], dtype=torch.float64)
    levels, flags = interpret(program, point[None])
    assert_equal(levels, [derivatives(f, point, 1)[1][None]])
    assert not flags.any()


@pytest.mark.slow
def test_points_that_are_not_finite_come_from_reverse_mode():
    def f(x):
        return x[0].sqrt() * x[1] + torch.where(x[2] > 0, x[2].log(), 0.0)

    points = torch.rand(1000, 3, dtype=torch.float64)
    points[::7, 0] = 0.0
    points[::11, 2] = 0.0
    evaluate = ROUTES["scalar"].prepare(request(f, 2), "rev_over_rev", 1, 64)
    levels = evaluate(points)
    assert levels[2].isnan().any()
    assert_equal(levels, reference(f, points, 2))
    assert [len(level) for level in evaluate(points[:0])] == [0, 0, 0]


@pytest.mark.slow
def test_the_kernel_is_taken_from_the_cache_by_another_process(tmp_path):
    code = """
import torch
from pipeline.autograd.request import Request
from pipeline.autograd.routes import ROUTES
x = torch.ones(3, dtype=torch.float64)
request = Request(lambda x: (x.sin() * x.flip(0) ** 5).sum(), x, (), (0, 1))
print(ROUTES["scalar"].prepare(request, "rev", 1, 64)(x[None])[1].tolist())
"""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    seen = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, env=environment
        )
        libraries = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.so")}
        seen.append((done.stdout, libraries))
    assert seen[0] == seen[1]
    assert seen[0][1]


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (SHAPES["scatter_prod"], "it reduces where an index says, and not by sums alone"),
        (lambda x: (x * x).index_put((x > 0.5,), x[0]), "where it writes depends on the point"),
    ],
)
def test_writes_that_are_no_sums_or_follow_values_are_refused(f, words):
    with pytest.raises(RefusedError, match=words):
        expand(f, ORDINARY[0], 1000)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_constants_too_small_to_be_multiplied_beforehand_keep_their_digits(dtype):
    limits = torch.finfo(dtype)
    small = 3.3 * limits.smallest_normal

    def f(x):
        return ((x * small) * 2.0**-15).sum()

    points = torch.full((2, 3), 0.01 * limits.max, dtype=dtype)
    (value, _), flagged = interpret(derive(request(f, 1, points[0])), points)
    assert not flagged.any()
    expected = torch.stack([f(x) for x in points])
    torch.testing.assert_close(value, expected, rtol=4 * limits.eps, atol=0)
