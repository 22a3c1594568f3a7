"""Patterns against the entries that are not zero at random points, and against closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.autograd.pattern import Pattern
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import RefusedError
from pipeline.autograd.sparsity.detection import detect
from pipeline.autograd.sparsity.propagation import Propagation
from pipeline.autograd.sparsity.sets import SetTable
from pipeline.autograd.sparsity.tracker import Tracker

F = torch.nn.functional


def draw(n, seed=0):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


def seen(f, n, order, points=4):
    """Entries of the reference that are not zero at some of a few points."""
    found = None
    for seed in range(points):
        level = derivatives(f, draw(n, seed) * (2 * (seed % 2) - 1 if seed > 1 else 1), order)[
            order
        ]
        level = level.reshape(-1, n) if order == 1 else level
        found = (level != 0) if found is None else found | (level != 0)
    return found


def mask(pattern):
    return pattern.to_dense(torch.ones(pattern.nnz)) != 0


def constant(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def in_place(x):
    y = torch.zeros(7, dtype=x.dtype)
    y[1:7] = x * x
    y[2] += x[0]
    return y


def convolved(x):
    weight = constant(2, 1, 3)
    return F.conv1d(x.reshape(1, 1, 6), weight, padding=1, dilation=1).reshape(-1)


def convolved_2d(x):
    return F.conv2d(
        x.reshape(1, 2, 4, 4), constant(4, 1, 3, 2), constant(4), stride=2, groups=2
    ).reshape(-1)


RING = torch.nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular", dtype=torch.float64)
RING.requires_grad_(False)
SPARSE = constant(5, 6) * torch.tensor([[1, 0, 0, 1, 0, 0]] * 2 + [[0, 1, 0, 0, 0, 0]] * 3)

# name -> function of 6 inputs (or as given), whose patterns are exactly the entries seen
TIGHT = {
    "stencil": lambda x: x[1:] * x[:-1],
    "sum of squares": lambda x: (x * x).sum(),
    "rosenbrock": lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum(),
    "arrow": lambda x: (x[0] * x[1:] ** 2).sum(),
    "division": lambda x: x[:3] / x[3:],
    "division of a constant": lambda x: 2.0 / x,
    "roll": lambda x: torch.roll(x, 1) * x + torch.sin(x),
    "index": lambda x: x[torch.tensor([0, 0, 5])] * x[torch.tensor([1, 2, 3])],
    "gather": lambda x: torch.gather(x.reshape(2, 3), 1, torch.tensor([[0], [2]])).exp(),
    "in place": in_place,
    "where": lambda x: torch.where(x > 0, x**2, torch.roll(x, 1) ** 3),
    "relu": lambda x: F.relu(x) * 2,
    "floor": lambda x: torch.floor(x * 10) + x[0],
    "sign": lambda x: torch.sign(x) * x,
    "matrix": lambda x: SPARSE @ x,
    "matrix from the right": lambda x: x @ SPARSE.T,
    "matrix and square": lambda x: (SPARSE @ x) ** 2,
    "masked constant": lambda x: x * torch.tensor([1.0, 0, 1, 0, 0, 1], dtype=x.dtype),
    "product of matrices": lambda x: (x[:4].reshape(2, 2) @ x[2:].reshape(2, 2)).reshape(-1),
    "batched product": lambda x: torch.bmm(constant(3, 2, 2), x.reshape(3, 2, 1)).reshape(-1),
    "linear layer": lambda x: F.linear(x.reshape(2, 3), constant(2, 3), constant(2)).reshape(-1),
    "dot": lambda x: torch.dot(x[:3], x[3:]),
    "outer": lambda x: torch.outer(x[:2], x[3:]).reshape(-1),
    "cumsum": lambda x: torch.cumsum(x, 0),
    "cumsum of squares": lambda x: torch.cumsum(x * x, 0),
    "mean along": lambda x: x.reshape(2, 3).exp().mean(1),
    "softmax": lambda x: torch.softmax(x.reshape(2, 3), 1).reshape(-1),
    "log softmax": lambda x: torch.log_softmax(x.reshape(2, 3), 1).sum(1),
    "logsumexp": lambda x: torch.logsumexp(x.reshape(2, 3), 1),
    "scatter add": lambda x: torch.zeros(4, dtype=x.dtype).scatter_add(
        0, torch.tensor([0, 1, 1, 3, 3, 3]), x**2
    ),
    "index add": lambda x: (x[:4] ** 2).index_add(0, torch.tensor([1, 1]), x[4:] ** 3),
    "index put": lambda x: x.clone().index_put((torch.tensor([0, 2]),), x[3:5] ** 2),
    "index put, added": lambda x: x.index_put((torch.tensor([2]),), x[:1] ** 2, accumulate=True),
    "masked select": lambda x: (
        torch.masked_select(x**2, torch.tensor([True, False, True, False, False, True])) * x[1]
    ),
    "scatter of a number": lambda x: x.scatter(0, torch.tensor([1, 2]), 3.0) ** 2,
    "pad": lambda x: F.pad(x, (1, 2)) ** 2,
    "conv1d": convolved,
    "conv2d": (convolved_2d, 32),
    "max pool": lambda x: F.max_pool1d(x.reshape(1, 1, 6), 2).reshape(-1),
    "avg pool": lambda x: F.avg_pool2d(x.reshape(1, 1, 2, 3), (2, 1)).reshape(-1) ** 2,
    "triangle": lambda x: torch.tril(torch.outer(x, x)).sum(1),
    "stack": lambda x: torch.stack([x[0], x[1] ** 2, x[2] * x[3]]),
    "einsum": lambda x: torch.einsum("ij,j->i", x[:4].reshape(2, 2), x[4:]),
    "addcmul": lambda x: torch.addcmul(x[:2], x[2:4], x[4:]),
    "mse": lambda x: F.mse_loss(x[:3], x[3:]),
    "constant": lambda x: torch.ones(3, dtype=x.dtype),
    "unused inputs": lambda x: x[2] ** 3,
    "norm": lambda x: torch.linalg.vector_norm(x.reshape(2, 3), dim=1),
    "vmap": lambda x: torch.func.vmap(lambda row: (row**2).sum())(x.reshape(3, 2)),
    "ring": lambda x: F.pad(x[None, None], (1, 1), mode="circular")[0, 0, 2:] * x,
    "ring in two dimensions": lambda x: (
        F.pad(x.reshape(1, 1, 2, 3), (1, 0, 0, 1), mode="circular").diff(dim=2).reshape(-1) ** 2
    ),
    "convolution on a ring": lambda x: RING(x[None, None]).reshape(-1) ** 2,
    "embedding": lambda x: F.embedding(torch.tensor([1, 0, 1]), x.reshape(3, 2)).reshape(-1) ** 2,
    "whole numbers beside": lambda x: torch.cat([x[:2] ** 2, torch.tensor([4, 5]), x[3:] * x[0]]),
    "size of complex": lambda x: torch.view_as_complex(x.reshape(3, 2)).abs(),
    "normalised by what is known": lambda x: F.batch_norm(
        x.reshape(1, 3, 2), constant(3), constant(3)
    ).reshape(-1),
    "ranks": lambda x: x * torch.tensor([3, 1, 2, 0, 5, 4]).argsort(),
    "gradient inside": lambda x: torch.func.grad(lambda z: (z[1:] * z[:-1] ** 2).sum())(x),
}

# their patterns hold more than what is seen
LOOSE = {
    "complex": lambda x: torch.view_as_real(torch.complex(x[:3], x[3:]) ** 2).reshape(-1),
    "fft": lambda x: torch.fft.rfft(x.reshape(2, 3)).abs().reshape(-1),
    "batched determinant": (lambda x: torch.linalg.det(x.reshape(2, 2, 2) + torch.eye(2)), 8),
    "index that moves": lambda x: x[(x[:2] * 3).long().clamp(0, 5)] * x[1],
    "gather that moves": lambda x: torch.gather(x, 0, x[:2].argsort()),
    "sort": lambda x: torch.sort(x.reshape(2, 3), dim=1).values.reshape(-1),
    "topk": lambda x: torch.topk(x.reshape(2, 3), 2, dim=1).values.reshape(-1),
    "median": lambda x: torch.median(x) * x[0],
    "maximum of all": lambda x: x.max() * x[1],
    "maximum": lambda x: torch.maximum(x[:3], x[3:]) ** 2,
    "clamp": lambda x: x.clamp(0.3, 0.7) ** 2,
    "amax": lambda x: x.reshape(2, 3).amax(1),
    "product": lambda x: x[:3].prod(),
    "cumprod": lambda x: torch.cumprod(x, 0),
    "masked put": lambda x: x.clone().masked_fill(x > 0.5, 2.0) ** 2,
    "boolean put": lambda x: torch.where(x > 0.5, 0.0, x).index_put((x > 0.2,), x[0]),
    "ranks that move": lambda x: x[torch.searchsorted(torch.linspace(0, 1, 3).to(x), x[:2])],
    "layer norm": lambda x: F.layer_norm(x.reshape(2, 3), (3,)).reshape(-1),
    "solve": lambda x: torch.linalg.solve(torch.eye(2) + x[:4].reshape(2, 2), x[4:]),
    "grid sample": lambda x: F.grid_sample(
        x[:4].reshape(1, 1, 2, 2), x[4:].reshape(1, 1, 1, 2), align_corners=True
    ).reshape(-1),
    "interpolate": lambda x: F.interpolate(x.reshape(1, 1, 6), size=9, mode="linear").reshape(-1),
    "transposed convolution": lambda x: F.conv_transpose1d(
        x.reshape(1, 1, 6), constant(1, 1, 3)
    ).reshape(-1),
    "gelu": lambda x: F.gelu(x) + F.silu(x) * F.softplus(x),
}


def case(entry):
    return entry if isinstance(entry, tuple) else (entry, 6)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", TIGHT)
def test_patterns_are_exactly_the_entries_that_are_not_zero(name, order):
    f, n = case(TIGHT[name])
    pattern = detect(f, draw(n), order)
    assert pattern.notes == ()
    assert torch.equal(mask(pattern), seen(f, n, order))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", LOOSE)
def test_patterns_hold_all_entries_that_are_not_zero(name, order):
    f, n = case(LOOSE[name])
    assert not (seen(f, n, order) & ~mask(detect(f, draw(n), order))).any()


def test_distances_depend_on_the_two_rows_that_they_join():
    def f(x):
        return torch.cdist(x[:2].reshape(1, 2), x[2:].reshape(2, 2)).reshape(-1)

    assert torch.equal(mask(detect(f, draw(6), 1)), seen(f, 6, 1))
    pairs = detect(lambda x: torch.pdist(x.reshape(3, 2)), draw(6), 1)
    assert torch.equal(mask(pairs), seen(lambda x: torch.pdist(x.reshape(3, 2)), 6, 1))


def test_patterns_of_all_branches_are_found_from_one_point():
    def f(x):
        return torch.where(x[0] > 0, x[1] ** 2, x[2] ** 2) + x[(x[3:] * 0).long()].sum()

    pattern = detect(f, draw(5), 2)
    assert {(1, 1), (2, 2)} <= set(
        zip(pattern.rows.tolist(), pattern.columns.tolist(), strict=True)
    )


@pytest.mark.parametrize("n", [100, 1000])
def test_tridiagonal_and_arrow_patterns_have_the_number_of_entries_that_counting_gives(n):
    chain = detect(TIGHT["rosenbrock"], draw(n), 2)
    assert chain.nnz == 3 * n - 2
    assert bool(((chain.rows - chain.columns).abs() <= 1).all())
    assert detect(TIGHT["arrow"], draw(n), 2).nnz == 3 * (n - 1)  # nothing at (0, 0)


def test_five_point_stencils():
    def laplacian(x):
        u = F.pad(x.reshape(20, 30), (1, 1, 1, 1))
        inner = u[1:-1, 1:-1]
        return (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * inner).reshape(-1)

    assert detect(laplacian, draw(600), 1).nnz == 5 * 600 - 2 * (20 + 30)


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: x * 2 if x[0] > 0 else x, "depends on values: aten._local_scalar_dense"),
        (lambda x: x[x > 0.5].sum(), "depends on values: aten"),
        (lambda x: x * x[0].item(), "depends on values"),
        (lambda x: x.nonzero().sum() * x, "depends on values: aten.nonzero"),
        (lambda x: x * torch.from_numpy(x.detach().numpy() > 0), "depends on values: Tensor.numpy"),
        (lambda x: x * x.data.tolist()[0], "depends on values: Tensor.tolist"),
        (
            lambda x: torch.outer(x, x).fill_diagonal_(0.0).sum(1),
            "cannot be followed: RuntimeError",
        ),
    ],
)
def test_what_depends_on_values_is_refused(f, words):
    with pytest.raises(RefusedError, match=words):
        detect(f, draw(5), 1)


def test_what_is_held_counts_with_all_of_its_values():
    def f(z, row):
        return torch.where(row[0] > 0, (z[:2] * row) @ z[:2].outer(row), z[2:] ** 2)

    zeros = torch.zeros(2, dtype=torch.float64)
    pattern = detect(lambda z: f(z, zeros), draw(4), 1, held=zeros)
    for row in (zeros, torch.ones(2, dtype=torch.float64)):
        assert not (seen(lambda z, row=row: f(z, row), 4, 1) & ~mask(pattern)).any()
    with pytest.raises(RefusedError, match="depends on values"):
        detect(lambda z: z**2 if zeros[0] == 0 else z**3, draw(4), 1, held=zeros)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, g):
        return g


def test_a_backward_pass_of_its_own_is_refused():
    with pytest.raises(RefusedError, match="a backward pass of its own: StraightBackward"):
        detect(Straight.apply, draw(5), 1)


def test_patterns_too_large_to_pay_are_refused(monkeypatch):
    monkeypatch.setattr("pipeline.autograd.sparsity.sets.MOST", 1000)
    with pytest.raises(RefusedError, match="too many entries to pay"):
        detect(lambda x: torch.cumsum(x, 0), draw(100), 1)
    monkeypatch.setattr("pipeline.autograd.sparsity.propagation.MOST", 1000)
    with pytest.raises(RefusedError, match="too many entries to pay"):
        detect(lambda x: x.sum() ** 2, draw(100), 2)


def test_operations_without_a_rule_are_taken_for_dense_and_named():
    pattern = detect(
        lambda x: F.conv_transpose1d(x.reshape(1, 1, 6), constant(1, 1, 3)), draw(6), 1
    )
    assert pattern.notes == ("convolution is taken for dense",)
    assert pattern.nnz == 6 * 8


def tracked(order=1):
    sets = Propagation(4, order)
    tracker, x = Tracker(sets), draw(4)
    tracker.remember(x, sets.start)
    return tracker, x, lambda y: sets.entries_of_jacobian(tracker.of(y), 4).tolist()


def test_what_is_written_through_a_view_is_read_through_any_other():
    """As operations below `functionalize` do: what fills a ring, for example."""
    tracker, x, entries = tracked()
    with tracker:
        base = torch.zeros(3, 2, dtype=x.dtype)
        row, column = base[1], base[:, 0]
        row.copy_(x[:2])
        assert entries(base) == [2 * 4 + 0, 3 * 4 + 1]
        column.mul_(x[3])
        assert entries(base.T.contiguous()) == [3, 4 + 0, 4 + 3, 8 + 3, 16 + 1]
        later = base[1, :1] * 2
        base.zero_()
        assert entries(row) == entries(column) == []
        assert entries(later) == [0, 3]


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: torch.add(x, x, out=torch.empty_like(x)), "what it writes into cannot be"),
        (
            lambda x: x.mul_(x).view(torch.int64),
            "reads as torch.int64 what it wrote as torch.float64",
        ),
    ],
)
def test_writing_that_is_not_understood_is_refused(f, words):
    tracker, x, _ = tracked()
    with tracker, pytest.raises(RefusedError, match=words):
        tracker.of(f(x))


@pytest.mark.parametrize("name", ["layer norm", "ranks", "ranks that move"])
def test_only_what_is_dense_is_said_to_be(name):
    f, n = case({**TIGHT, **LOOSE}[name])
    assert detect(f, draw(n), 1).notes == ()


def test_patterns_are_in_compressed_rows():
    pattern = Pattern.of_flat(torch.tensor([8, 3, 1, 3]), (3, 4))
    assert pattern.rows.tolist() == [0, 0, 2]
    assert pattern.columns.tolist() == [1, 3, 0]
    assert pattern.indptr.tolist() == [0, 2, 2, 3]
    dense = pattern.to_dense(torch.tensor([[5.0, 6.0, 7.0]]))
    assert dense.tolist() == [[[0, 5, 0, 6], [0, 0, 0, 0], [7, 0, 0, 0]]]
    assert pattern.take(dense).tolist() == [[5, 6, 7]]
    assert pattern.density == 0.25


def test_the_transposed_of_entries():
    pattern = Pattern.of_flat(torch.tensor([0, 1, 3, 5, 7]), (3, 3))
    assert pattern.is_symmetric(2)
    assert pattern.flat[pattern.exchanged(-1)].tolist() == [0, 3, 1, 7, 5]
    assert not Pattern.of_flat(torch.tensor([1]), (3, 3)).is_symmetric(2)
    assert not Pattern.of_flat(torch.tensor([0]), (3, 4)).is_symmetric(2)
    assert Pattern.of_flat(torch.tensor([0]), (3, 4)).is_symmetric(1)
    stacked = Pattern.of_flat(torch.tensor([1, 3, 9 + 1]), (2, 3, 3))
    assert stacked.coordinates.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert stacked.ascending(2).tolist() == [1, 1, 10]
    assert not stacked.is_symmetric(2)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 9), max_size=6)), max_size=15),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8),
)
def test_unions_are_those_of_python(members, pairs):
    table = SetTable()
    groups = [{entry} for entry in range(6)]
    numbers = table.singletons(np.arange(6))
    for owner, entries in members:
        chosen = np.array([owner, *sorted(entry % 6 for entry in entries)])
        made = table.unite(np.zeros_like(chosen), numbers[chosen], 1)
        groups[owner] = set().union(*(groups[each] for each in chosen.tolist()))
        numbers[owner] = made[0]
    left, right = np.array(pairs).T
    merged = table.merge(numbers[left], numbers[right])
    for (a, b), number in zip(pairs, merged.tolist(), strict=True):
        found = table.members(np.array([number]))[1].tolist()
        assert found == sorted(groups[a] | groups[b])


STEPS = {
    "shift": lambda x: torch.roll(x, 1) + x,
    "square": lambda x: x * x,
    "sine": torch.sin,
    "product": lambda x: x * torch.flip(x, [0]),
    "head": lambda x: torch.cat([x[:3], x[:3].cumsum(0)]),
    "mix": lambda x: torch.where(x > 0, x, SPARSE.T @ (SPARSE @ x)),
    "scatter": lambda x: torch.zeros_like(x).index_add(0, torch.tensor([0, 0, 1, 2, 2, 5]), x),
    "quotient": lambda x: x[torch.tensor([1, 0, 3, 2, 5, 4])] / (2 + x.abs()),
}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4), st.booleans())
def test_compositions_hold_all_entries_that_are_not_zero(names, summed):
    def f(x):
        for name in names:
            x = STEPS[name](x)
        return x.sum() if summed else x[:5]

    for order in (1, 2):
        pattern = detect(f, draw(6), order)
        assert not (seen(f, 6, order) & ~mask(pattern)).any()
