"""Any torch function that a user has: its derivatives are right, flagged, or refused, never wrong.

One row per function. The oracle is independent of torch's derivatives: a formula by hand, mpmath
at 60 digits, or differences of high order of the values.
"""

# ruff: noqa: E501 - one row per function

import logging
import math
from dataclasses import dataclass
from typing import Any

import mpmath
import pytest
import torch
from support.custom_functions import Once
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import pipeline
from pipeline.autograd.evaluated import FAILED, NONFINITE, NONSMOOTH, OK
from pipeline.errors import DisagreementError, FunctionError, PipelineError

DOUBLE = torch.float64
mpmath.mp.dps = 60
FOUR = torch.tensor(
    [[0.3, -0.8, 1.2, 0.5], [1.1, 0.4, -0.6, 2.0], [0.7, 0.2, 0.9, -1.3]], dtype=DOUBLE
)
NINE = torch.randn(2, 9, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)
WEIGHTS = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}  # differences of 8th order


def differences(f, x, h):
    """Jacobian of any f by central differences of 8th order: (*f(x).shape, n)."""
    with torch.no_grad():
        columns = [
            sum(w * (f(x + k * h * e) - f(x - k * h * e)) for k, w in WEIGHTS.items()) / h
            for e in torch.eye(len(x), dtype=x.dtype)
        ]
    return torch.stack(columns, dim=-1)


def expected(f, x, order):
    """Derivatives of order 1 or 2, from values alone."""
    if order == 1:
        return differences(f, x, 1e-3)
    return differences(lambda y: differences(f, y, 4e-3), x, 4e-3)


def agree(result, f, order, tolerance=1e-6):
    name = {1: "jacobian", 2: "hessian"}[order]
    for x, seen in zip(result.x, result.datasets[name], strict=True):
        truth = expected(f, x, order)
        assert seen.shape == truth.shape
        assert (seen - truth).abs().max() <= tolerance * truth.abs().max().clamp_min(1e-3)
    assert (result.status == OK).all()


# ---- control flow, state, and autograd of every vintage ----------------------------------------


class OldStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class OldStyleInNumpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 3)

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class Kept(torch.autograd.Function):
    """Its first derivative is right, and a constant for whoever differentiates it again."""

    @staticmethod
    def forward(ctx, x):
        ctx.slope = (3 * x**2).detach()
        return x**3

    @staticmethod
    def backward(ctx, g):
        return ctx.slope * g


BUFFER = torch.zeros(4, dtype=DOUBLE)
COUNT = [0]


def branch(x):
    return (x**2).sum() if x[0] > 0.5 else (x**3).sum()


def while_loop(x):
    y, steps = x, 0
    while steps < 3 + int(x[0] > 0.5):
        y, steps = torch.sin(y) * x.flip(0), steps + 1
    return y.sum()


def item_decides(x):
    return (x**3).sum() if x[0].item() > 0.5 else x.prod()


def boolean_indexing(x):
    return (x[x > 0] ** 3).sum()


def captured_buffer(x):
    with torch.no_grad():
        BUFFER.copy_(torch.arange(4, dtype=DOUBLE))
    return (BUFFER * x**3).sum()


def in_place_on_a_clone(x):
    y = x.clone()
    y[1:] += x[:-1] ** 2
    y.mul_(2)
    return (y * x).sum()


def checkpointed(x):
    return checkpoint(lambda y: (y.sin() * y.exp()).sum(), x, use_reentrant=False)


@torch.jit.script
def scripted(x):
    return (torch.sin(x) * x.flip(0) ** 3).sum()


TRACED = torch.jit.trace(
    lambda x: (torch.sin(x) * x.flip(0) ** 3).sum(), FOUR[0], check_trace=False
)


def seeded(x):
    generator = torch.Generator().manual_seed(3)
    return (x**2 * torch.rand(4, generator=generator, dtype=x.dtype)).sum()


def batch_statistics(x):
    rows = torch.stack([x, x.sin(), x**2])
    return functional.batch_norm(rows, None, None, training=True).pow(3).sum()


def gradient_inside(x):
    with torch.enable_grad():
        y = x if x.requires_grad else x.detach().requires_grad_()
        (slope,) = torch.autograd.grad((y**3).sum(), y, create_graph=True)
    return (slope**2).sum()


def constant_without_gradient(x):
    with torch.no_grad():
        sign = torch.sign(x)
    return (sign * x**3).sum()


def shifted_by_what_is_detached(x):
    top = x.max().detach()
    return top + torch.log(torch.exp(x - top).sum())


def where_hides_nan(x):
    return torch.where(x > 0, x, torch.ones_like(x)).log().sum()


def integer_mask(x):
    return (x * torch.tensor([1, 0, 2, 0])).pow(3).sum() + (x * (x > 0)).pow(2).sum()


def newton(x):
    y = torch.ones((), dtype=x.dtype)
    for _ in range(30):
        y = y - (y**3 + y - x[0]) / (3 * y**2 + 1)
    return y * x[1]


def newton_by_its_own_jacobian(x):
    def residual(y):
        return y**3 + y * x[0] ** 2 - x

    y = torch.ones_like(x)
    for _ in range(2):
        y = y - torch.linalg.solve(torch.func.jacfwd(residual)(y), residual(y))
    return y


STATE = {
    "branch": branch,
    "while": while_loop,
    "item": item_decides,
    "boolean_indexing": boolean_indexing,
    "captured_buffer": captured_buffer,
    "in_place": in_place_on_a_clone,
    "old_style": lambda x: OldStyle.apply(x).sum(),
    "old_style_numpy": lambda x: OldStyleInNumpy.apply(x).sum(),
    "checkpoint": checkpointed,
    "scripted": scripted,
    "traced": TRACED,
    "seeded": seeded,
    "batch_statistics": batch_statistics,
    "gradient_inside": gradient_inside,
    "no_grad_constant": constant_without_gradient,
    "detached_shift": shifted_by_what_is_detached,
    "where": where_hides_nan,
    "masks": integer_mask,
    "newton": newton,
    "newton_by_its_own_jacobian": newton_by_its_own_jacobian,
    "largest": lambda x: torch.topk(x, 3).values ** 3,
    "largest_but_one": lambda x: x.kthvalue(3).values ** 3,
    "clone_in_out": lambda x: x.clone(),
    "view": lambda x: x.view(2, 2)[0] ** 2,
    "expanded": lambda x: (x[0] ** 2).expand(3),
    "constant": lambda x: torch.ones((), dtype=x.dtype),
    "half_constant": lambda x: torch.stack([x[0] ** 2, torch.ones((), dtype=x.dtype)]),
}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", STATE)
def test_control_flow_and_state(name, order):
    f = STATE[name]
    operator = {1: "jacobian", 2: "hessian"}[order]
    result = pipeline.evaluate(f, FOUR, operator)
    assert result.plan.cost.setup_seconds == 0  # no compiler is worth its time for so few points
    agree(result, f, order)


# ---- what torch is made of: linear algebra, transforms, layers -----------------------------------


def symmetric(x):
    m = x.reshape(3, 3)
    return m @ m.T + 3 * torch.eye(3, dtype=x.dtype)


def layer(kind, *sizes, **options):
    torch.manual_seed(1)
    return kind(*sizes, dtype=DOUBLE, **options).eval()


LSTM = layer(torch.nn.LSTM, 3, 2)
GRU = layer(torch.nn.GRU, 3, 2)
ATTENTION = layer(torch.nn.MultiheadAttention, 4, 2)
ENCODER = layer(torch.nn.TransformerEncoderLayer, 4, 2, 8, dropout=0.0)
SPARSE = torch.tensor([[0, 2, 0, 1], [1, 0, 0, 0], [0, 0, 3, 0]], dtype=DOUBLE).to_sparse()


def attention(x):
    q = x.reshape(1, 1, 3, 3)
    return functional.scaled_dot_product_attention(q, q.sin(), q.cos()).pow(2).sum()


def encoder(x):
    rows = torch.cat([x, x[:3] ** 2]).reshape(3, 1, 4)
    return ENCODER(rows).pow(3).sum()


def self_attention(x):
    rows = torch.cat([x, x[:3] ** 2]).reshape(3, 1, 4)
    return ATTENTION(rows, rows, rows)[0].pow(2).sum()


MADE_OF = {
    "det": lambda x: torch.linalg.det(x.reshape(3, 3)),
    "slogdet": lambda x: torch.linalg.slogdet(symmetric(x))[1],
    "solve": lambda x: torch.linalg.solve(symmetric(x), x[:3]).pow(2).sum(),
    "inv": lambda x: torch.linalg.inv(symmetric(x)).pow(2).sum(),
    "eigh": lambda x: (torch.linalg.eigvalsh(symmetric(x)) ** 2)[0],
    "svd": lambda x: torch.linalg.svdvals(x.reshape(3, 3))[0],
    "cholesky": lambda x: torch.linalg.cholesky(symmetric(x)).diagonal().log().sum(),
    "matrix_exp": lambda x: torch.linalg.matrix_exp(0.3 * x.reshape(3, 3)).sum(),
    "fft": lambda x: torch.fft.fft(x).abs().pow(3).sum(),
    "complex": lambda x: torch.exp(1j * x).sum().abs() ** 2,
    "lstm": lambda x: LSTM(x.reshape(3, 1, 3))[0].pow(2).sum(),
    "gru": lambda x: GRU(x.reshape(3, 1, 3))[0].pow(2).sum(),
    "attention": attention,
    "self_attention": self_attention,
    "encoder": encoder,
    "layer_norm": lambda x: functional.layer_norm(x, (9,)).pow(3).sum(),
    "scatter": lambda x: torch.zeros(2, dtype=x.dtype).scatter_add(
        0, torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1]), x**2
    ).pow(2).sum(),
    "sparse": lambda x: torch.sparse.mm(SPARSE, (x[:4] ** 2)[:, None]).pow(2).sum(),
    "interpolate": lambda x: functional.interpolate(
        x.reshape(1, 1, 3, 3), size=(5, 5), mode="bicubic"
    ).pow(3).sum(),
}  # fmt: skip
SLOW = {"encoder", "self_attention", "lstm", "gru", "interpolate"}


@pytest.mark.parametrize("name", [n for n in MADE_OF if n not in SLOW])
def test_what_torch_is_made_of(name):
    f = MADE_OF[name]
    points = NINE if name != "det" else torch.cat([NINE, torch.eye(3, dtype=DOUBLE).reshape(1, 9)])
    agree(pipeline.evaluate(f, points, "hessian"), f, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_what_layers_are_made_of(name):
    agree(pipeline.evaluate(MADE_OF[name], NINE, "hessian"), MADE_OF[name], 2)


def test_fused_attention_is_as_the_user_left_it():
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.allow_tf32
    seen = []

    def f(x):
        seen.append(torch.backends.cuda.flash_sdp_enabled())
        return (x**2).sum()

    evaluator = pipeline.prepare(f, FOUR, "gradient", count=3)
    seen.clear()
    evaluator(FOUR)
    assert not any(seen)
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.allow_tf32) == before


# ---- what would be silently wrong is refused, with a reason -------------------------------------


def no_grad_inside(x):
    with torch.no_grad():
        total = x.sum()
    return total * (x**2).sum()


def hooked(x):
    y = x**2
    if y.requires_grad:
        y.register_hook(lambda g: 2 * g)
    return y.sum()


def rounded_straight_through(x):
    return (x + (x.round() - x).detach()).pow(2).sum()


def counting(x):
    COUNT[0] += 1
    return (x**2).sum() * COUNT[0]


def fixed_point(x):
    with torch.no_grad():
        y = torch.ones((), dtype=x.dtype)
        for _ in range(60):
            y = y - (y**3 + y - x[0]) / (3 * y**2 + 1)
    y = y - (y**3 + y - x[0]) / (3 * y.detach() ** 2 + 1)
    return y * x[1]


def modified_in_place(x):
    y = x.clone()
    y[0] *= y[1]
    return y.mul_(2).sin_().sum()


@dataclass(frozen=True)
class Refused:
    f: Any
    order: int
    kind: type
    message: str


REFUSED = {
    "detach": Refused(lambda x: (x.detach() * x).sum(), 1, DisagreementError, "lost at torch.Tensor.detach"),
    "data": Refused(lambda x: (x.data * x).sum(), 1, DisagreementError, "lost at torch.Tensor.data"),
    "no_grad": Refused(no_grad_inside, 1, DisagreementError, r"lost at torch.no_grad"),
    "item": Refused(lambda x: x[0].item() * x.sum(), 1, DisagreementError, "lost at torch.Tensor.item"),
    "tolist": Refused(lambda x: torch.tensor(x.tolist(), dtype=DOUBLE).sum(), 1, DisagreementError, "lost at torch.Tensor.tolist"),
    "numpy": Refused(lambda x: (torch.from_numpy(x.detach().numpy() ** 2) * x).sum(), 1, DisagreementError, "lost at torch.Tensor.detach"),
    "bessel": Refused(lambda x: torch.special.bessel_j0(x).sum(), 1, DisagreementError, "lost at torch.special.bessel_j0"),
    "airy": Refused(lambda x: (torch.special.airy_ai(x) + x**2).sum(), 1, DisagreementError, "lost at torch.special.airy_ai"),
    "straight_through": Refused(rounded_straight_through, 1, DisagreementError, "lost at torch.Tensor.detach"),
    "hook": Refused(hooked, 1, DisagreementError, "a hook"),
    "once": Refused(lambda x: Once.apply(x).sum(), 2, DisagreementError, r"custom autograd.Function"),
    "kept": Refused(lambda x: Kept.apply(x).sum(), 2, DisagreementError, r"custom autograd.Function"),
    "fixed_point": Refused(fixed_point, 2, DisagreementError, "automatic and finite differences"),
    "cdist": Refused(lambda x: torch.cdist(x.reshape(2, 2), torch.eye(2, dtype=DOUBLE)).sum(), 2, FunctionError, "_cdist_backward.* is not implemented"),
    "igamma": Refused(lambda x: torch.special.gammainc(x.abs(), x.abs()).sum(), 1, FunctionError, "not implemented"),
    "reentrant": Refused(lambda x: checkpoint(torch.sin, x, use_reentrant=True).sum(), 1, FunctionError, "use_reentrant"),
    "overwritten": Refused(modified_in_place, 1, FunctionError, "inplace operation"),
    "random": Refused(lambda x: (x * torch.rand(4, dtype=x.dtype)).sum(), 1, FunctionError, "two values at one point"),
    "dropout": Refused(lambda x: functional.dropout(x).sum(), 1, FunctionError, "It is random"),
    "gumbel": Refused(lambda x: functional.gumbel_softmax(x)[0], 1, FunctionError, "It is random"),
    "counter": Refused(counting, 1, FunctionError, "keeps something from call to call"),
    "changes_input": Refused(lambda x: x.mul_(2).sum(), 1, FunctionError, "changes its input in place"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_wrong_is_refused(name):
    row = REFUSED[name]
    operator = {1: "gradient", 2: "hessian"}[row.order]
    with pytest.raises(row.kind, match=row.message):
        pipeline.evaluate(row.f, FOUR, operator)


# ---- one variable: mpmath at every point, kinks and poles among them -------------------------------


@dataclass(frozen=True)
class Curve:
    """A function of one variable with its formula.

    Attributes:
        f: In torch.
        formula: In mpmath.
        flagged: Points at which some order is not ok: at all others it has to be right.
        domain: Where it has a value.
        lost: Points at which terms of f's own derivatives cancel from order 2 on, so that digits are
            lost that nothing tells; docs/accuracy.md says so.
    """

    f: Any
    formula: Any
    flagged: tuple[float, ...] = ()
    domain: tuple[float, float] = (-math.inf, math.inf)
    lost: tuple[float, ...] = ()


PLACES = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.3, -0.7, 3.0, 1e-6, 1e-2, 8.0)
BIG, TWO = math.inf, mpmath.mpf(2)
CURVES = {
    "sinc": Curve(torch.sinc, mpmath.sincpi, (0.0, 1e-6, 1e-2)),
    "gauss_of_norm": Curve(lambda x: torch.exp(-(x[None].norm() ** 2)), lambda x: mpmath.exp(-x * x), (0.0,)),
    "norm": Curve(lambda x: x[None].norm(), abs, (0.0,)),
    "x_log_x": Curve(lambda x: torch.xlogy(x, x), lambda x: x * mpmath.log(x), (0.0,), (0, BIG)),
    "entr": Curve(torch.special.entr, lambda x: -x * mpmath.log(x), (0.0,), (0, BIG)),
    "sqrt": Curve(torch.sqrt, mpmath.sqrt, (0.0,), (0, BIG)),
    "log": Curve(torch.log, mpmath.log, (0.0,), (0, BIG)),
    "logit": Curve(torch.logit, lambda x: mpmath.log(x / (1 - x)), (0.0, 1.0), (0, 1)),
    "acosh": Curve(torch.acosh, mpmath.acosh, (1.0,), (1, BIG)),
    "asin": Curve(torch.asin, mpmath.asin, (1.0, -1.0), (-1, 1)),
    "erfinv": Curve(torch.erfinv, mpmath.erfinv, (1.0, -1.0), (-1, 1)),
    "atan2": Curve(lambda x: torch.atan2(x, x * 0 + 1), mpmath.atan),
    "atan2_at_0": Curve(lambda x: torch.atan2(x, x**2), lambda x: mpmath.atan2(x, x * x), (0.0,), lost=(1e-6,)),
    "hypot": Curve(lambda x: torch.hypot(x, x**2), lambda x: abs(x) * mpmath.sqrt(1 + x * x), (0.0,), lost=(1e-6,)),
    "power_itself": Curve(lambda x: x**x, lambda x: x**x, (0.0, 1.0), (0, BIG)),
    "zero_to_the": Curve(lambda x: torch.zeros_like(x) ** x, lambda x: mpmath.mpf(0), PLACES, (0, BIG)),
    "square_by_tensor": Curve(lambda x: x ** torch.tensor(2.0, dtype=DOUBLE), lambda x: x * x),
    "cube": Curve(lambda x: x**3, lambda x: x**3),
    "relu": Curve(torch.relu, lambda x: max(x, 0), (0.0,)),
    "abs_times": Curve(lambda x: x * x.abs(), lambda x: x * abs(x), (0.0,)),
    "hinge": Curve(lambda x: x.clamp(-1, 0.5), lambda x: min(max(x, -1), 0.5), (-1.0, 0.5)),
    "floor": Curve(torch.floor, mpmath.floor, (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 8.0)),
    "round": Curve(lambda x: torch.round(x) * x, lambda x: mpmath.nint(x) * x, (0.5, -0.5)),
    "fmod": Curve(lambda x: torch.fmod(x, 0.7), lambda x: x - mpmath.mpf(0.7) * int(x / mpmath.mpf(0.7)), (0.0, -0.7)),
    "tie": Curve(lambda x: torch.stack([x, x**2]).max(), lambda x: max(x, x * x), (0.0, 1.0)),
    "median": Curve(lambda x: torch.stack([x, x**2, 2 - x]).median(), lambda x: sorted([x, x * x, 2 - x])[1], (0.0, 1.0, -2.0)),
    "sort": Curve(lambda x: torch.stack([x, x**2]).sort().values[0], lambda x: min(x, x * x), (0.0, 1.0)),
    "std_at_0": Curve(lambda x: torch.stack([x, -x]).std(), lambda x: abs(x) * mpmath.sqrt(2), (0.0,), lost=(1e-6,)),
    "normalize": Curve(lambda x: functional.normalize(torch.stack([x, x * x]), dim=0)[0], lambda x: mpmath.sign(x) / mpmath.sqrt(1 + x * x), (0.0,), lost=(1e-6,)),
    "logsumexp": Curve(lambda x: torch.logsumexp(100 * torch.stack([x, -x]), 0), lambda x: 100 * abs(x) + mpmath.log1p(mpmath.exp(-200 * abs(x)))),
    "lgamma": Curve(torch.lgamma, lambda x: mpmath.log(abs(mpmath.gamma(x))), (0.0, -1.0, -2.0)),
    "digamma": Curve(torch.digamma, mpmath.digamma, (0.0, -1.0, -2.0)),
    "polygamma": Curve(lambda x: torch.polygamma(2, x), lambda x: mpmath.polygamma(2, x), (0.0, -1.0, -2.0)),
    "i0": Curve(torch.special.i0, lambda x: mpmath.besseli(0, x)),
    "i1": Curve(torch.special.i1, lambda x: mpmath.besseli(1, x), (0.0, 1e-6, 1e-2)),
    "i0e": Curve(torch.special.i0e, lambda x: mpmath.exp(-abs(x)) * mpmath.besseli(0, x), (0.0,)),
    "i1e": Curve(torch.special.i1e, lambda x: mpmath.exp(-abs(x)) * mpmath.besseli(1, x), (0.0, 1e-6, 1e-2)),
    "gammainc": Curve(lambda x: torch.special.gammainc(torch.full_like(x, 1.5), x), lambda x: mpmath.erf(mpmath.sqrt(x)) - 2 * mpmath.sqrt(x / mpmath.pi) * mpmath.exp(-x), (0.0,), (0, BIG)),
    "zeta": Curve(lambda x: torch.special.zeta(torch.full_like(x, 2.5), x), lambda x: mpmath.zeta(2.5, x), (0.0,), (0, BIG)),
    "erfcx": Curve(torch.special.erfcx, lambda x: mpmath.exp(x * x) * mpmath.erfc(x)),
    "singular": Curve(lambda x: torch.linalg.det(torch.stack([x, x, x, 2 * x]).reshape(2, 2)), lambda x: x * x, (0.0,)),
}  # fmt: skip


def derivative(formula, x, order):
    """From values alone, at 60 digits."""
    return float(mpmath.re(mpmath.diff(formula, mpmath.mpf(x), order, h=mpmath.mpf("1e-15"))))


@pytest.mark.parametrize("order", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CURVES)
def test_curves(name, order, caplog):
    caplog.set_level(logging.ERROR)
    curve = CURVES[name]
    points = torch.tensor(PLACES, dtype=DOUBLE)[:, None]
    try:
        result = pipeline.evaluate(lambda x: curve.f(x[0]), points, "derivative", order=order)
    except PipelineError as error:
        pytest.fail(f"refused: {error}")
    seen = result.datasets[f"derivative_{order}"].reshape(-1)
    low, high = curve.domain
    for x, value, status in zip(PLACES, seen.tolist(), result.status.tolist(), strict=True):
        if not low <= x <= high:
            assert status == NONFINITE, f"outside of the domain at {x}: {value}"
        elif (x in curve.flagged and status in (NONSMOOTH, NONFINITE)) or (
            x in curve.lost and order > 1
        ):
            continue
        else:
            truth = derivative(curve.formula, x, order)
            assert status == OK, f"status {status} at {x}"
            assert abs(value - truth) <= 1e-6 * max(abs(truth), 0.1), (x, value, truth)


# ---- points that fail alone, functions that compute in float32 -------------------------------------


def picky(x):
    if x[0] > 1:
        raise ValueError(f"no such state: {float(x[0])}")
    return (x**2).sum()


def test_a_bad_point_fails_alone_and_says_why(tmp_path):
    with pipeline.run(picky, FOUR, "gradient", output_dir=tmp_path) as results:
        assert results.status[:].tolist() == [OK, FAILED, OK]
        assert results.failures == {1: "ValueError: no such state: 1.1"}
    evaluation = pipeline.evaluate(picky, FOUR, "gradient", on_point_error="flag")
    assert evaluation.failures == results.failures


def test_a_bad_point_can_stop_the_job(tmp_path):
    for evaluate in (pipeline.evaluate, pipeline.run):
        keywords = {"output_dir": tmp_path} if evaluate is pipeline.run else {}
        with pytest.raises(FunctionError, match="raised at point 1: ValueError: no such state"):
            evaluate(picky, FOUR, "gradient", on_point_error="stop", **keywords)
    with pytest.raises(PipelineError, match="on_point_error: expected flag or stop, got 'ignore'"):
        pipeline.evaluate(picky, FOUR, "gradient", on_point_error="ignore")


def test_what_computes_in_float32_inside_is_said(caplog):
    def f(x):
        return (x.float() ** 3).sum().double()

    result = pipeline.evaluate(f, FOUR, "gradient")
    assert "carry noise of" in caplog.text
    assert 1e-9 < result.certificate.rounding_error < 1e-6
    assert torch.allclose(result.gradient, 3 * FOUR**2, rtol=1e-6)


def test_the_power_of_a_variable_by_a_variable():
    points = torch.tensor([[2.0, 0.0], [2.0, 1.0], [3.0, 0.5], [1.5, 2.0]], dtype=DOUBLE)
    result = pipeline.evaluate(lambda x: x[0] ** x[1], points, "hessian")
    assert result.status.tolist() == [
        NONSMOOTH,
        OK,
        OK,
        OK,
    ]  # torch's own is not symmetric at y = 0
    for (x, y), seen in list(zip(points.tolist(), result.hessian, strict=True))[1:]:
        log, power = math.log(x), x**y
        mixed = x ** (y - 1) * (1 + y * log)
        truth = torch.tensor(
            [[y * (y - 1) * x ** (y - 2), mixed], [mixed, power * log**2]], dtype=DOUBLE
        )
        assert torch.allclose(seen, truth, rtol=1e-12)


def test_noise_is_no_number_where_the_function_vanishes(caplog):
    def guarded(x):
        if x[0] > 0.6:
            raise ValueError("outside the range of the model")
        return (x**2).sum()

    points = torch.linspace(0, 1, 5, dtype=DOUBLE)[:, None]
    result = pipeline.evaluate(guarded, points, "gradient")
    assert "noise" not in caplog.text
    assert result.status.tolist() == [OK, OK, OK, FAILED, FAILED]
    assert result.certificate.rounding_error is None


class Leaning(torch.autograd.Function):
    """x * y with a backward pass whose Hessian is not symmetric by a little."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x[0] * 0.0

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * torch.stack([1e-7 * x[1], 0 * x[0]])


def zero_by_cancellation(x):
    return torch.log(x[0] / x[1]).exp() * x[1]  # this is x[0]


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("symmetric", ["full", "packed"])
def test_what_cancels_within_the_function_is_rounding(order, symmetric):
    generator = torch.Generator().manual_seed(0)
    points = 0.2 + 2 * torch.rand(50, 2, dtype=DOUBLE, generator=generator)
    result = pipeline.evaluate(
        zero_by_cancellation, points, "derivative", order=order, route="loop", symmetric=symmetric
    )
    assert result.status.tolist() == [OK] * 50
    (found,) = result.datasets.values()
    assert float(found.abs().max()) < 1e-12


def test_small_errors_are_seen_beside_what_cancels():
    points = 0.2 + 2 * torch.rand(9, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DisagreementError, match="is not symmetric"):
        pipeline.evaluate(
            lambda x: zero_by_cancellation(x) + Leaning.apply(x), points, "hessian", route="loop"
        )
