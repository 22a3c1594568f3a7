"""Tensors of nodes, and scalar operations on every entry of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.request import RefusedError
from pipeline.autograd.scalar.dag import ONE, ZERO, Dag
from pipeline.autograd.scalar.operations import OPERATIONS


@dataclass(frozen=True)
class Entries:
    """A tensor whose entries are nodes.

    Attributes:
        nodes: int64, of the shape of the tensor.
        mask: The entries are truth values.
    """

    nodes: Tensor
    mask: bool = False


def as_entries(value: Any, dag: Dag) -> Entries:
    """Nodes of a value: of a constant tensor, a number or a truth value; entries stay.

    Args:
        value: What to turn into nodes.
        dag: The graph.

    Returns:
        The entries.

    Raises:
        RefusedError: It is complex or sparse.
    """
    if isinstance(value, Entries):
        return value
    if not isinstance(value, Tensor):
        kind = torch.bool if isinstance(value, bool) else torch.float64
        value = torch.tensor(value, dtype=kind)
    tensor: Tensor = value
    if tensor.is_complex() or tensor.layout != torch.strided:
        raise RefusedError(f"it uses a {tensor.layout} tensor of {tensor.dtype}")
    mask = tensor.dtype == torch.bool
    flat = [dag.constant(bool(x) if mask else float(x)) for x in tensor.reshape(-1).tolist()]
    return Entries(torch.tensor(flat, dtype=torch.int64).reshape(tensor.shape), mask)


def elementwise(dag: Dag, name: str, *args: Any) -> Entries:
    """Apply a scalar operation to every entry, with broadcasting.

    Args:
        dag: The graph.
        name: The operation.
        args: Entries, tensors or numbers.

    Returns:
        The result.

    Raises:
        RefusedError: A logical operation is applied to numbers.
    """
    entries = [as_entries(arg, dag) for arg in args]
    numbers = name not in ("and", "or", "not", "where", "stop")
    if numbers:
        entries = [as_numbers(dag, entry) for entry in entries]
    elif name == "where":
        if not entries[0].mask:
            raise RefusedError("it chooses by numbers, not by truth values")
        entries = [entries[0], *(as_numbers(dag, entry) for entry in entries[1:])]
    elif name != "stop" and not all(entry.mask for entry in entries):
        raise RefusedError(f"it applies {name} to numbers")
    tensors: list[Tensor] = torch.broadcast_tensors(*(entry.nodes for entry in entries))  # type: ignore[no-untyped-call]
    rows = zip(*(tensor.reshape(-1).tolist() for tensor in tensors), strict=True)
    nodes = [dag.apply(name, *row) for row in rows]
    mask = OPERATIONS[name].mask or (name == "stop" and entries[0].mask)
    return Entries(torch.tensor(nodes, dtype=torch.int64).reshape(tensors[0].shape), mask)


def as_numbers(dag: Dag, entries: Entries) -> Entries:
    """Turn truth values into 1 and 0; numbers stay.

    Args:
        dag: The graph.
        entries: Any.

    Returns:
        Numbers.
    """
    if not entries.mask:
        return entries
    flat = [dag.apply("where", node, ONE, ZERO) for node in entries.nodes.reshape(-1).tolist()]
    return Entries(torch.tensor(flat, dtype=torch.int64).reshape(entries.nodes.shape))
