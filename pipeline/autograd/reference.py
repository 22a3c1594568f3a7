"""The notebook's three functions: the plainest definition, and the reference for all routes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def flat_grad(
    y: Tensor,
    x: Tensor | Sequence[Tensor],
    retain_graph: bool = False,
    create_graph: bool = False,
) -> Tensor:
    """Gradient of a scalar, flattened and concatenated.

    Args:
        y: Scalar, computed from `x`.
        x: A tensor or a sequence of tensors, with n elements in all.
        retain_graph: Keep the graph for a further call; implied by `create_graph`.
        create_graph: Make the result differentiable.

    Returns:
        Shape (n,); zeros where y does not depend on x.

    Examples:
        >>> x = torch.arange(4.0, requires_grad=True)
        >>> flat_grad((x**2).sum(), x)
        tensor([0., 2., 4., 6.])
    """
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    if not y.requires_grad:
        return torch.cat([torch.zeros_like(entry).reshape(-1) for entry in inputs])
    gradients = torch.autograd.grad(
        y,
        inputs,
        retain_graph=retain_graph or create_graph,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def jacobian(y: Tensor, x: Tensor, create_graph: bool = False) -> Tensor:
    """Derivative of every element of y with respect to every element of x.

    One call of `torch.autograd.grad` per element of y. The graph of y is kept.

    Args:
        y: Any shape, computed from `x`.
        x: Any shape.
        create_graph: Make the result differentiable.

    Returns:
        Shape ``y.shape + x.shape``; zeros where y does not depend on x.

    Examples:
        >>> x = torch.ones(4, requires_grad=True)
        >>> jacobian(x * x * torch.arange(4), x).diagonal()
        tensor([0., 2., 4., 6.])
    """
    rows = [
        flat_grad(entry, x, retain_graph=True, create_graph=create_graph) for entry in y.reshape(-1)
    ]
    if not rows:
        return x.new_zeros(y.shape + x.shape)
    return torch.stack(rows).reshape(y.shape + x.shape)


def hessian(y: Tensor, x: Tensor) -> Tensor:
    """Second derivative of every element of y, also for vector-valued y.

    Args:
        y: Any shape, computed from `x`.
        x: Any shape.

    Returns:
        Shape ``y.shape + x.shape + x.shape``; zeros where y does not depend on x.

    Examples:
        >>> x = torch.ones(2, requires_grad=True)
        >>> hessian((x**3).sum(), x)
        tensor([[6., 0.],
                [0., 6.]])
    """
    return jacobian(jacobian(y, x, create_graph=True), x)


def derivatives(f: Callable[[Tensor], Tensor], x: Tensor, order: int) -> tuple[Tensor, ...]:
    """All derivatives of f up to an order at one point: what repeated `jacobian` gives, row by row.

    Args:
        f: Maps (n,) to any output shape.
        x: One point, shape (n,).
        order: Highest order k.

    Returns:
        f(x), Df(x), …, D^k f(x), where D^j f has shape ``output_shape + (n,) * j``.
    """
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        levels = [f(point)]
        rows = [levels[0].reshape(-1)]
        for level in range(1, order + 1):
            rows = [
                flat_grad(entry, point, retain_graph=True, create_graph=level < order)
                for row in rows  # apart: a pass through stacked rows would go through all of them
                for entry in row
            ]
            shape = (*levels[-1].shape, len(point))
            levels.append(torch.stack(rows).detach().reshape(shape) if rows else x.new_zeros(shape))
    return tuple(level.detach() for level in levels)


def directional(
    f: Callable[[Tensor], Tensor], x: Tensor, weights: Tensor, directions: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """One number and its gradient in place of a whole tensor: a cheap view of high orders.

    Args:
        f: Maps (n,) to `output_shape`.
        x: One point, shape (n,).
        weights: w, of `output_shape`: takes the place of the outputs.
        directions: v_1 … v_j, each (n,).

    Returns:
        The j-th directional derivative ``w · D^j f(x)[v_1, …, v_j]``, shape (), and its
        gradient with respect to x, shape (n,).
    """
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        value = _directional(f, point, weights, directions)
        gradient = flat_grad(value, point, retain_graph=True)
    return value.detach(), gradient.detach()


def directional_value(
    f: Callable[[Tensor], Tensor], x: Tensor, weights: Tensor, directions: Sequence[Tensor]
) -> Tensor:
    """The number that `directional` gives, without its gradient, for a third of the time.

    Args:
        f: Maps (n,) to `output_shape`.
        x: One point, shape (n,).
        weights: w, of `output_shape`.
        directions: v_1 … v_j, each (n,).

    Returns:
        ``w · D^j f(x)[v_1, …, v_j]``, shape ().
    """
    with torch.enable_grad():  # as in `directional`: what f does may depend on it
        point = x.detach().clone().requires_grad_()
        return _directional(f, point, weights, directions).detach()


def _directional(
    f: Callable[[Tensor], Tensor], point: Tensor, weights: Tensor, directions: Sequence[Tensor]
) -> Tensor:
    value = (weights * f(point)).sum()
    for direction in directions:
        value = (flat_grad(value, point, create_graph=True) * direction).sum()
    return value
