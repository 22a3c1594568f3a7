"""Looks at a call of torch from both sides of its operands: what does it jump over?

Most calls are smooth (`SMOOTH`); where the kinks of others lie is written down in
`pipeline.autograd.checks.kinks`. Everything else, a loss with a margin or a cell of a grid, is called a few units of
rounding to both sides of where it stands, and again a little farther away. What is smooth differs by as much
more as it is farther away; a jump, of the value or of a derivative, does not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_iter, tree_unflatten

LOOKS = (0, 64, -64, 1024, -1024)  # units of rounding: here, nearby, and farther away
OnVector = Callable[[Tensor], Tensor]

WORDS = """
    acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d add addbmm addcdiv
    addcmul addmm addmv addr adjoint affine_grid all alpha_dropout any arccos arccosh arcsin
    arcsinh arctan arctanh array as_strided as_tensor asin asinh atan atanh avg_pool1d avg_pool2d
    avg_pool3d backward baddbmm batch_norm bernoulli bfloat16 bilinear binary_cross_entropy
    binary_cross_entropy_with_logits block_diag bmm bool broadcast_tensors broadcast_to can_cast
    cartesian_prod cat cdouble cfloat chain_matmul cholesky cholesky_ex cholesky_inverse
    cholesky_solve chunk clone column_stack combinations complex concat concatenate conj
    conj_physical contains contiguous conv1d conv2d conv3d conv_tbc conv_transpose1d
    conv_transpose2d conv_transpose3d convolution copy corrcoef cos cosh cov cpu cross
    cross_entropy cuda cumprod cumsum cumulative_trapezoid data_ptr deepcopy deg2rad det detach
    diag diag_embed diagflat diagonal diagonal_scatter diff digamma dim div divide dot double
    dropout dsplit dstack einsum element_size embedding empty_like entr equal erf erfc
    erfcx erfinv exp exp2 expand expand_as expit expm1 feature_dropout fft_fft fft_fft2 fft_fftn
    fft_fftshift fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_irfft fft_irfft2 fft_irfftn
    fft_rfft fft_rfft2 fft_rfftn fill flatten flip fliplr flipud float float_power fold format
    full_like gammaln gather gelu ger get getitem glu gradient group_norm gru gru_cell half hash
    householder_product hsplit hstack i0 i0e i1 i1e iadd idiv imag imatmul imul index_add
    index_copy index_fill index_put index_select inner instance_norm interpolate inv inv_ex
    inverse ipow is_all_true is_any_true is_complex is_contiguous is_floating_point is_same_size
    isfinite isinf isnan isreal istft isub item iter itruediv kl_div kron layer_norm ldexp
    ldl_factor ldl_solve len lerp lgamma linear local_response_norm log log10 log1p log2 log_ndtr
    log_softmax logaddexp logaddexp2 logcumsumexp logdet logit logsigmoid logsumexp lstm lstm_cell
    lu lu_factor lu_factor_ex lu_solve lu_unpack masked_fill masked_scatter masked_select
    matmul matrix_exp matrix_power mean meshgrid mish mm moveaxis movedim mse_loss mul multi_dot
    multi_head_attention_forward multigammaln multilabel_soft_margin_loss multinomial multiply mv
    nan_to_num nanmean nansum narrow ndimension ndtr ndtri neg negative nelement new_empty
    new_full new_ones new_tensor new_zeros nll_loss normal numel numpy ones_like outer pad permute
    pixel_shuffle pixel_unshuffle poisson_nll_loss polar polygamma pos positive pow prod psi
    rad2deg radd rand_like randint_like randn_like ravel rdiv real reciprocal reduce_ex
    register_hook repeat repeat_interleave repr requires_grad reshape reshape_as resolve_conj
    resolve_neg result_type retain_grad rmatmul rms_norm rmul rnn_tanh rnn_tanh_cell roll rot90
    row_stack rpow rsqrt rsub rtruediv scaled_dot_product_attention scatter scatter_add select
    select_scatter set setitem sigmoid silu sin sinc sinh size slice_scatter slogdet
    soft_margin_loss softmax softmin softplus softsign solve solve_ex solve_triangular split
    split_with_sizes sqrt square squeeze stack stft storage stride sub subtract sum swapaxes
    swapdims t take take_along_dim tan tanh tanhshrink tensor tensor_split tensordot tensorinv
    tensorsolve tile tolist trace transpose trapezoid trapz triangular_solve tril triu true_divide
    truediv type type_as unbind unflatten unfold uniform unsafe_chunk unsafe_split unsqueeze
    untyped_storage upsample vander var var_mean vdot vecdot view view_as view_as_complex
    view_as_real vsplit vstack where xlog1py xlogy zero zeros_like
"""
SMOOTH = frozenset(WORDS.split())


def jumps(
    call: Callable[..., Any],
    args: Any,
    options: Any,
    is_held: Callable[[Any], bool],
    order: int,
    strict: bool = False,
) -> Tensor | None:
    """Tell whether a call, or a derivative of it, goes over to another formula where it stands.

    Args:
        call: A function or method of torch; of one that works in place, its twin is looked at.
        args: Its arguments.
        options: Its keyword arguments.
        is_held: Whether a tensor does not depend on what is differentiated.
        order: Highest order of the derivatives that matter.
        strict: Raise where it cannot be looked at, or not be differentiated: in a batch, which can be
            taken apart. Else as much is looked at as can be.

    Returns:
        Truth values, one for every result and, per order, for every entry of the operands; None
        where the call has no such operand, or gives no tensor.
    """
    twin = _out_of_place(call)
    leaves, spec = tree_flatten((args, options))
    moved = [index for index, leaf in enumerate(leaves) if _is_number(leaf) and not is_held(leaf)]
    if twin is None or not moved:
        return None
    operands = [_real(leaves[index]) for index in moved]

    def value(u: Tensor) -> Tensor:
        given, parts = list(leaves), torch.split(u, [operand.numel() for operand in operands])
        for index, operand, part in zip(moved, operands, parts, strict=True):
            given[index] = _like(leaves[index], part.reshape(operand.shape).to(operand.dtype))
        positional, named = tree_unflatten(given, spec)
        results = [each for each in tree_iter(twin(*positional, **named)) if _is_tensor(each)]
        return torch.cat([_real(each).reshape(-1).to(u.dtype) for each in results])

    u = torch.cat([operand.reshape(-1) for operand in operands])
    steps = torch.cat([_unit(operand) for operand in operands]) * _weights(u)
    try:
        return _jumps(partial(_levels, value, order, strict), u, steps)
    except Exception:  # what it does beside its operands is its own affair
        if strict:
            raise
        return None


def whole_jumps(f: OnVector, z: Tensor, order: int) -> Tensor:
    """Tell whether a whole function goes over to another formula: what is in it cannot be followed.

    Args:
        f: Maps (n,) to any shape, and can be differentiated so often.
        z: Where, (n,).
        order: Highest order of the derivatives that matter.

    Returns:
        Truth values, one for every result and, per order, for every variable.
    """

    def value(u: Tensor) -> Tensor:
        return f(u.clone()).reshape(-1)

    return _jumps(partial(_levels, value, order, True), z, _unit(z) * _weights(z))


def _jumps(levels_at: Callable[[Tensor], list[Tensor]], u: Tensor, steps: Tensor) -> Tensor:
    looks = [levels_at(u + units * steps) for units in LOOKS]
    met, natural = [], torch.zeros_like(u[0])
    for levels in zip(*looks, strict=False):
        natural = torch.maximum(natural / (u + 64 * steps).abs().amax(), levels[1].abs().amax())
        met.append(_meets_jump(natural, *levels))
    return torch.cat(met)


def _levels(value: OnVector, order: int, strict: bool, u: Tensor) -> list[Tensor]:
    """The value, and derivatives along weights; unless strict, as far as there are any."""
    is_transformed = torch._C._functorch.maybe_current_level() is not None
    gradient = _transformed_gradient if is_transformed else _plain_gradient
    level, found = value, [value(u)]
    with nullcontext() if strict else suppress(Exception):  # torch has no further derivative
        for _ in range(order):
            level = gradient(level)
            found.append(level(u).detach())
    return found


def _transformed_gradient(level: OnVector) -> OnVector:
    gradient: OnVector = torch.func.grad(partial(_weighted, level))
    return gradient


def _plain_gradient(level: OnVector) -> OnVector:
    """For what the transforms of torch do not take."""

    def gradient(u: Tensor) -> Tensor:
        with torch.enable_grad():
            u = u if u.requires_grad else u.detach().requires_grad_()
            y = _weighted(level, u)
            if not y.requires_grad:
                return torch.zeros_like(u)
            (slope,) = torch.autograd.grad(y, u, create_graph=True, materialize_grads=True)
        return slope

    return gradient


def _weighted(value: OnVector, u: Tensor) -> Tensor:
    level = value(u)
    return (level * _weights(level)).sum()


def _weights(like: Tensor) -> Tensor:
    """Numbers of either sign and of different sizes between 0.6 and 1, of the shape of a vector."""
    index = torch.arange(1, len(like) + 1, dtype=like.dtype, device=like.device)
    signs = torch.where(torch.cos(2.3 * index) < 0, -1.0, 1.0).to(like.dtype)
    return signs * (0.8 + 0.2 * torch.sin(1.7 * index))


def _unit(operand: Tensor) -> Tensor:
    """A unit of rounding of every entry; of a zero, one of the largest entry."""
    limits, flat = torch.finfo(operand.dtype), operand.reshape(-1).abs()
    least = min(limits.tiny**0.25, limits.eps)  # its powers are numbers as well
    size = torch.where(flat > 0, flat, flat.amax()).clamp_min(least)
    return limits.eps * size


def _meets_jump(natural: Tensor, here: Tensor, *beside: Tensor) -> Tensor:
    """Whether two sides differ, or the place itself from them, no less where they are nearer."""
    if len({len(level) for level in (here, *beside)}) > 1:  # not even as many results
        return torch.ones(1, dtype=torch.bool)
    above, below, far_above, far_below = beside
    sides = _is_jump(natural, above, below, far_above, far_below)
    up, down = (
        _is_jump(natural, here, *pair)
        for pair in ((above, here, far_above), (below, here, far_below))
    )
    return sides | (up & down)


def _is_jump(
    natural: Tensor, one: Tensor, other: Tensor, far_one: Tensor, far_other: Tensor
) -> Tensor:
    eps = torch.finfo(one.dtype).eps
    gap, far, size = (one - other).abs(), (far_one - far_other).abs(), one.abs() + other.abs()
    is_large = (gap > eps ** (1 / 3) * size) & (gap > 1000 * eps * natural)
    met: Tensor = is_large & (gap > 0.5 * far)
    return met


def _out_of_place(call: Any) -> Any:
    name = getattr(call, "__name__", "")
    is_in_place = name.endswith("_") and not name.endswith("__")
    return getattr(Tensor, name[:-1], None) if is_in_place else call


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() > 0


def _is_number(value: Any) -> bool:
    is_dense = _is_tensor(value) and value.layout == torch.strided
    return is_dense and (value.is_floating_point() or value.is_complex())


def _real(value: Tensor) -> Tensor:
    return torch.view_as_real(value.resolve_conj()) if value.is_complex() else value


def _like(leaf: Tensor, operand: Tensor) -> Tensor:
    return torch.view_as_complex(operand) if leaf.is_complex() else operand
