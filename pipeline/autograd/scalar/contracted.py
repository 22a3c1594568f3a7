"""Symbolic sums over entries of derivatives: only what they need is derived."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.autograd.definitions.contractions import (
    Across,
    Along,
    Contraction,
    Diagonal,
    Direction,
    Divergence,
)
from pipeline.autograd.request import RefusedError
from pipeline.autograd.scalar.dag import ZERO, Dag
from pipeline.autograd.scalar.derivatives import gradient, touch


def contracted(dag: Dag, outputs: Tensor, n: int, item: Contraction, row: Sequence[int]) -> Tensor:
    """Nodes of a contraction.

    Args:
        dag: The graph; it grows.
        outputs: Nodes of f, int64 of shape () or (m,).
        n: Number of variables.
        item: Which contraction.
        row: Nodes of what belongs to a point.

    Returns:
        int64, of the shape of the contraction.

    Raises:
        RefusedError: It is not made of sums and products.
    """
    variables = [dag.variable(index) for index in range(n)]
    roots = outputs.reshape(-1).tolist()
    touch(dag)
    match item:
        case Along(order=1):
            found = _along(dag, roots, variables, _nodes(dag, item.direction, row))
        case Along():
            first = _along(dag, roots, variables, _nodes(dag, item.direction, row))
            touch(dag)
            found = [node for root in first for node in gradient(dag, root, variables)]
        case Across():
            found = gradient(dag, _dot(dag, roots, _nodes(dag, item.direction, row)), variables)
        case Divergence():
            found = [_sum(dag, _own(dag, roots, variables))]
        case Diagonal():
            gradients = [gradient(dag, root, variables) for root in roots]
            touch(dag)
            diagonals = [_own(dag, entries, variables) for entries in gradients]
            whole = [_sum(dag, entries) for entries in diagonals]
            found = whole if item.summed else [node for entries in diagonals for node in entries]
        case _:
            raise RefusedError(f"it has no rule for {type(item).__name__.lower()}")
    return torch.tensor(found, dtype=torch.int64).reshape(item.shape(n, tuple(outputs.shape)))


def _nodes(dag: Dag, direction: Direction, row: Sequence[int]) -> list[int]:
    if direction.vector is not None:
        return [dag.constant(float(entry)) for entry in direction.vector.reshape(-1).tolist()]
    return list(row[slice(*direction.columns)])


def _along(dag: Dag, roots: list[int], variables: list[int], v: list[int]) -> list[int]:
    return [_dot(dag, gradient(dag, root, variables), v) for root in roots]


def _own(dag: Dag, roots: list[int], variables: list[int]) -> list[int]:
    pairs = zip(roots, variables, strict=True)
    return [gradient(dag, root, [variable])[0] for root, variable in pairs]


def _dot(dag: Dag, left: Sequence[int], right: Sequence[int]) -> int:
    return _sum(dag, [dag.apply("mul", a, b) for a, b in zip(left, right, strict=True)])


def _sum(dag: Dag, nodes: Sequence[int]) -> int:
    total = ZERO
    for node in nodes:
        total = dag.apply("add", total, node)
    return total
