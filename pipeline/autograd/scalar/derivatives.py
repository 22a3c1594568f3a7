"""Symbolic derivatives of a graph, by reverse sweeps that share all nodes.

Griewank and Walther, Evaluating Derivatives, SIAM 2008, chapter 3 (reverse mode); the symmetry of
higher orders is used: only entries with ascending input indices are derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from pipeline.autograd.scalar.dag import ONE, ZERO, Dag
from pipeline.autograd.scalar.operations import OPERATIONS


def differentiate(dag: Dag, outputs: Tensor, n: int, order: int) -> list[Tensor]:
    """Nodes of all derivatives up to an order.

    Args:
        dag: The graph; it grows.
        outputs: Nodes of f, int64 of shape () or (m,).
        n: Number of inputs.
        order: Highest order k.

    Returns:
        For j = 0 … k the nodes of D^j f, int64 of shape ``outputs.shape + (n,) * j``.
    """
    variables = [dag.variable(index) for index in range(n)]
    levels = [outputs]
    rows: dict[tuple[int, ...], int] = {
        (i,): node for i, node in enumerate(outputs.reshape(-1).tolist())
    }
    for level in range(1, order + 1):
        touch(dag)
        rows = {
            (*key, i): node
            for key, root in rows.items()
            for i, node in enumerate(gradient(dag, root, variables))
            if level == 1 or i >= key[-1]
        }
        levels.append(_dense(rows, outputs, n, level))
    return levels


def gradient(dag: Dag, root: int, variables: list[int]) -> list[int]:
    """Nodes of the derivative of one node with respect to variables.

    Args:
        dag: The graph; it grows.
        root: The node.
        variables: Nodes of inputs.

    Returns:
        A node per variable.
    """
    cotangents = _cotangents(dag, root)
    return [cotangents.get(variable, ZERO) for variable in variables]


def entries(dag: Dag, roots: Mapping[int, int], n: int, ascending: bool) -> dict[int, int]:
    """Nodes of the entries of derivatives that are not the number 0.

    Args:
        dag: The graph; it grows.
        roots: What is differentiated: position -> node.
        n: Number of inputs.
        ascending: The roots are derivatives themselves: only by inputs from their own last one on,
            position % n, since the order does not matter.

    Returns:
        ``position * n + input`` -> node.
    """
    touch(dag)
    columns = {dag.variable(index): index for index in range(n)}
    found: dict[int, int] = {}
    for place, root in roots.items():
        least = place % n if ascending else 0
        for node, cotangent in _cotangents(dag, root).items():
            column = columns.get(node, -1)
            if cotangent != ZERO and column >= least:
                found[place * n + column] = cotangent
    return found


def _cotangents(dag: Dag, root: int) -> dict[int, int]:
    """Derivatives of one node with respect to all that it is computed from."""
    cotangents = {root: ONE}
    for node in reversed(dag.needed([root])):
        g = cotangents.get(node, ZERO)
        name, args = dag.nodes[node]
        pull = OPERATIONS[name].pull
        if g == ZERO or pull is None:
            continue
        for arg, part in zip(args, pull(dag, node, args, g), strict=True):
            if part != ZERO and dag.value(arg) is None:
                cotangents[arg] = dag.apply("add", cotangents.get(arg, ZERO), part)
    return cotangents


def touch(dag: Dag) -> None:
    """Send a zero back through every node.

    Where torch multiplies a zero cotangent by an infinite derivative it gets NaN; the operands
    that are folded away here are remembered for that.
    """
    for node in range(len(dag.nodes)):
        name, args = dag.nodes[node]
        pull = OPERATIONS[name].pull
        if pull is not None:
            pull(dag, node, args, ZERO)


def _dense(rows: dict[tuple[int, ...], int], outputs: Tensor, n: int, level: int) -> Tensor:
    """Fill the symmetric tensor from its entries with ascending input indices."""
    result = torch.zeros((outputs.numel(), *(n,) * level), dtype=torch.int64)
    index = torch.cartesian_prod(*[torch.arange(n)] * level).reshape(-1, level)
    ascending = index.sort(dim=1).values
    for output in range(outputs.numel()):
        table = torch.zeros((n,) * level, dtype=torch.int64)
        for key in combinations_with_replacement(range(n), level):
            table[key] = rows[(output, *key)]
        result[output] = table[tuple(ascending.T)].reshape((n,) * level)
    return result.reshape(*outputs.shape, *(n,) * level)
