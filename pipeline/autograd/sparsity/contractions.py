"""What products of matrices, convolutions, windows and linear algebra do to sets, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.sparsity.propagation import Propagation, Tracked, nothing
from pipeline.autograd.sparsity.rules import Call, Rule, dense

MOST_PRODUCTS = 1 << 22  # of two matrices that both depend on the inputs, followed one by one


class _UnknownError(Exception):
    """The operation is called in a way for which there is no rule."""


def _guarded(rule: Callable[[Call, Propagation], Tracked]) -> Rule:
    """A rule for the first result; what it does not know has no result of the right shape."""

    def guarded(call: Call, sets: Propagation) -> list[Tracked]:
        try:
            first = rule(call, sets)
        except _UnknownError:
            return []
        return [first.expand(out.shape) for out in call.outputs]

    return guarded


def _product(call: Call, sets: Propagation, a: Any, b: Any) -> Tracked:
    """Matrix product (…, i, k) (…, k, j); vectors are matrices of one row or column."""
    shape = call.out.shape
    left, right = call.of(a), call.of(b)
    if left is not None and right is not None:
        return _both(sets, _as_left(left), _as_right(right)).reshape(shape)
    if left is not None:
        mirrored = _constant_times(sets, _weights(b, right=True).mT, _as_left(left).map(_mT))
        return mirrored.map(_mT).reshape(shape)
    assert right is not None, "one of them depends on the inputs"
    return _constant_times(sets, _weights(a), _as_right(right)).reshape(shape)


def _mT(one: Tensor) -> Tensor:
    return one.mT


def _as_left(tracked: Tracked) -> Tracked:
    return tracked[None] if len(tracked.shape) == 1 else tracked


def _as_right(tracked: Tracked) -> Tracked:
    return tracked[:, None] if len(tracked.shape) == 1 else tracked


def _weights(value: Tensor, right: bool = False) -> Tensor:
    """Where a constant matrix is not zero."""
    kept = (value.to_dense() if value.layout != torch.strided else value).cpu() != 0
    if kept.ndim == 1:
        return kept[:, None] if right else kept[None]
    return kept


def _constant_times(sets: Propagation, kept: Tensor, tracked: Tracked) -> Tracked:
    """Product of a constant matrix (…, i, k) with sets (…, k, j)."""
    *batch, _, columns = tracked.shape
    rows = kept.shape[-2]
    kept = kept.expand(*batch, *kept.shape[-2:])
    shape = (*batch, rows, columns)
    if bool(kept.all()):  # then all rows are alike
        return _summed(sets, tracked, -2).expand(shape)
    where = kept.nonzero()
    picked = tracked[(*where[:, :-2].unbind(1), where[:, -1])]
    row = torch.arange(int(torch.Size(shape[:-1]).numel())).reshape(shape[:-1])
    owners = row[tuple(where[:, :-1].unbind(1))][:, None] * columns + torch.arange(columns)
    return sets.unite(picked, owners, shape)


def _both(sets: Propagation, left: Tracked, right: Tracked) -> Tracked:
    """Product of sets (…, i, k) with sets (…, k, j)."""
    terms = left.inputs.numel() * right.shape[-1]
    if terms > MOST_PRODUCTS:  # coarser: all of a row with all of a column
        return sets.multiply(_summed(sets, left, -1), _summed(sets, right, -2))
    products = sets.multiply(left[..., None], right[..., None, :, :])
    return _summed(sets, products, -2)[..., 0, :]


def _summed(sets: Propagation, tracked: Tracked, dim: int) -> Tracked:
    shape = list(tracked.shape)
    shape[dim] = 1
    owners = torch.arange(int(torch.Size(shape).numel())).reshape(shape).expand(tracked.shape)
    return sets.unite(tracked, owners, tuple(shape))


def _matmul(call: Call, sets: Propagation) -> Tracked:
    return _product(call, sets, *call.args[:2])


def _added_product(call: Call, sets: Propagation) -> Tracked:
    product = _product(call, sets, *call.args[1:3])
    return sets.join(product, call.sets(call.args[0]))


def _windows(
    tracked: Tracked,
    pads: Sequence[int],
    sizes: Sequence[int],
    steps: Sequence[int],
    gaps: Sequence[int],
) -> Tracked:
    """All windows over the last dimensions: (…, positions, places within the window)."""
    lead = len(tracked.shape) - len(sizes)
    margins = [margin for pad in reversed(list(pads)) for margin in (pad, pad)]

    def slide(one: Tensor) -> Tensor:
        one = torch.constant_pad_nd(one, margins, 0)
        for axis, (size, step, gap) in enumerate(zip(sizes, steps, gaps, strict=True)):
            one = one.unfold(lead + axis, gap * (size - 1) + 1, step)[..., ::gap]
        return one

    return tracked.map(slide)


def _convolution(call: Call, sets: Propagation) -> Tracked:
    source, weight, bias, steps, pads, gaps, transposed, _, groups = call.args[:9]
    tracked = call.of(source)
    if transposed or tracked is None or call.of(weight) is not None:
        raise _UnknownError
    batch, channels = tracked.shape[:2]
    windows = _windows(tracked, pads, weight.shape[2:], steps, gaps)
    places = windows.shape[2 : 2 + len(pads)]
    split = windows.reshape(batch, groups, channels // groups, *windows.shape[2:])
    owners = torch.arange(batch * groups * places.numel())
    owners = owners.reshape(batch, groups, 1, *places, *[1] * len(pads)).expand(split.shape)
    united = sets.unite(split, owners, (batch, groups, *places))
    result = united.map(lambda one: one.repeat_interleave(call.out.shape[1] // groups, 1))
    if call.of(bias) is None:
        return result
    over = call.sets(bias).reshape(-1, *[1] * len(pads))
    return sets.join(result, over)


def _pool(call: Call, sets: Propagation) -> Tracked:
    """Mean or maximum over windows; `max_pool` has gaps between the places, `avg_pool` has none."""
    sizes = list(call.args[1])
    steps = list(call.option(2, "stride", ())) or sizes
    pads = list(call.option(3, "padding", ())) or [0]
    is_maximum = "max" in call.func._overloadpacket.__name__
    gaps = list(call.option(4, "dilation", ())) if is_maximum else []
    rank = len(sizes)
    pads, gaps = pads * (rank // len(pads)), (gaps or [1]) * (rank // len(gaps or [1]))
    windows = _windows(call.sets(call.args[0]), pads, sizes, steps, gaps)
    shape = tuple(windows.shape[:-rank])
    if shape != tuple(call.out.shape):  # rounded up at the border
        raise _UnknownError
    owners = torch.arange(call.out.numel()).reshape(*shape, *[1] * rank).expand(windows.shape)
    return sets.unite(windows, owners, shape)


def _distances(call: Call, sets: Propagation) -> Tracked:
    """Distances of all rows of one matrix to all rows of another."""
    rows = [_summed(sets, call.sets(each), -1) for each in call.args[:2]]
    return sets.bend(rows[0], rows[1].map(_mT))


def _pair_distances(call: Call, sets: Propagation) -> Tracked:
    rows = _summed(sets, call.sets(call.args[0]), -1)[:, 0]
    first, second = torch.triu_indices(len(rows.inputs), len(rows.inputs), 1)
    return sets.bend(rows[first], rows[second])


def _per_matrix(call: Call, sets: Propagation) -> list[Tracked]:
    """Linear algebra: all of one matrix of a batch together."""
    lead = min(len(out.shape) for out in call.outputs)
    batch = call.args[0].shape[:-2] if isinstance(call.args[0], Tensor) else torch.Size()
    wholes = []
    for tracked in call.operands():
        if tracked.shape[: len(batch)] != batch or lead < len(batch):
            return dense(call, sets)
        flat = tracked.reshape(*batch, -1)
        wholes.append(_summed(sets, flat, -1).reshape(batch))
    whole = sets.bend(*wholes)
    return [_spread(whole, out.shape) for out in call.outputs]


def _spread(whole: Tracked, shape: torch.Size) -> Tracked:
    if shape[: len(whole.shape)] != whole.shape:
        return nothing(shape)  # sizes and pivots have shapes of their own, and no derivative
    extra = len(shape) - len(whole.shape)
    return whole.reshape((*whole.shape, *[1] * extra)).expand(shape)


ALGEBRA = """
    _linalg_det _linalg_slogdet linalg_inv_ex _linalg_solve_ex linalg_cholesky_ex _linalg_eigh
    _linalg_svd linalg_lu_factor_ex linalg_lu linalg_lu_solve linalg_qr linalg_solve_triangular
    linalg_matrix_exp linalg_eig linalg_pinv cholesky_solve cholesky_inverse triangular_solve
"""
CONTRACTIONS: dict[str, Rule] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_sparse_mm"), _guarded(_matmul)),
    **dict.fromkeys(("addmm", "addmv", "baddbmm"), _guarded(_added_product)),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d"), _guarded(_pool)),
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), _guarded(_pool)),
    **dict.fromkeys(ALGEBRA.split(), _per_matrix),
    "convolution": _guarded(_convolution),
    "_cdist_forward": _guarded(_distances),
    "_pdist_forward": _guarded(_pair_distances),
}
