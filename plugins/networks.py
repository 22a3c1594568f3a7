"""Neural networks: derivatives of a multilayer perceptron by its inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline import Function, hookimpl

Layers = tuple[tuple[Tensor, Tensor], ...]


def build_mlp(
    inputs: int = 8, hidden: int = 64, layers: int = 2, outputs: int = 0, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """Build a tanh multilayer perceptron with random weights.

    Args:
        inputs: Number of inputs, n.
        hidden: Units in each hidden layer.
        layers: Number of hidden layers.
        outputs: Number of outputs, m; 0 gives a scalar.
        seed: Seed of the weights.

    Returns:
        Maps (n,) to (m,), or to () for outputs = 0.
    """
    *inner, last = _layers(inputs, hidden, layers, outputs, seed)

    def network(x: Tensor) -> Tensor:
        for layer in inner:
            x = torch.tanh(_affine(layer, x))
        y = _affine(last, x)
        return y if outputs else y.squeeze(0)

    return network


def _layers(inputs: int, hidden: int, layers: int, outputs: int, seed: int) -> Layers:
    """Weights (p, q) and biases (p,), normal with variance 1/q, float64 whatever x will be."""
    generator = torch.Generator().manual_seed(seed)
    widths = (inputs, *(hidden,) * layers, outputs or 1)
    return tuple(
        (_normal(generator, p, q) / q**0.5, _normal(generator, p) / q**0.5)
        for q, p in itertools.pairwise(widths)
    )


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _affine(layer: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    weight, bias = (part.to(dtype=x.dtype, device=x.device) for part in layer)
    return weight @ x + bias


def _derivatives(x: Tensor, layers: Layers) -> tuple[Tensor, Tensor]:
    """Jacobian (m, n) and Hessian (m, n, n), carried through the layers by the chain rule."""
    n = x.shape[0]
    h, J, H = x, torch.eye(n, dtype=x.dtype, device=x.device), x.new_zeros(n, n, n)
    for depth, layer in enumerate(layers):
        weight = layer[0].to(dtype=x.dtype, device=x.device)
        h, J, H = _affine(layer, h), weight @ J, torch.tensordot(weight, H, dims=1)
        if depth < len(layers) - 1:
            h = torch.tanh(h)
            slope = 1 - h**2
            bend = -2 * h * slope
            H = bend[:, None, None] * J[:, :, None] * J[:, None, :] + slope[:, None, None] * H
            J = slope[:, None] * J
    return J, H


def mlp_jacobian(x: Tensor, outputs: int = 0, **shape: Any) -> Tensor:
    """Jacobian by the chain rule, (m, n), or (n,) for a scalar network."""
    J, _ = _derivatives(x, _layers(outputs=outputs, **shape))
    return J if outputs else J.squeeze(0)


def mlp_hessian(x: Tensor, outputs: int = 0, **shape: Any) -> Tensor:
    """Hessian by the chain rule, (m, n, n), or (n, n) for a scalar network."""
    _, H = _derivatives(x, _layers(outputs=outputs, **shape))
    return H if outputs else H.squeeze(0)


def _inputs(inputs: int, **_: Any) -> int:
    return inputs


def _outputs(_n: int, outputs: int, **_: Any) -> tuple[int, ...]:
    return (outputs,) if outputs else ()


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the multilayer perceptron."""
    return [
        Function(
            "mlp",
            build_mlp,
            n=_inputs,
            output_shape=_outputs,
            domain=(-2.0, 2.0),
            source="D. E. Rumelhart, G. E. Hinton & R. J. Williams, Nature 323 (1986) 533-536",
            summary="Multilayer perceptron with tanh units and random weights",
            closed_form={
                "gradient": mlp_jacobian,
                "jacobian": mlp_jacobian,
                "hessian": mlp_hessian,
            },
        )
    ]
