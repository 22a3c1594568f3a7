"""Operations that put entries where an index says: the index is the same at every point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.request import RefusedError
from pipeline.autograd.scalar.dag import Dag
from pipeline.autograd.scalar.entries import Entries, as_entries, as_numbers, elementwise

Place = Callable[[Tensor], Tensor]  # flat positions of the result -> those that are written


def _nodes(dag: Dag, value: Any) -> Tensor:
    return as_numbers(dag, as_entries(value, dag)).nodes


def _written(dag: Dag, x: Any, place: Place) -> tuple[Tensor, Tensor]:
    """Nodes of what is written into, and the flat positions that are written."""
    nodes = _nodes(dag, x)
    return nodes, place(torch.arange(nodes.numel()).reshape(nodes.shape))


def _put(dag: Dag, x: Any, place: Place, source: Any) -> Entries:
    nodes, places = _written(dag, x, place)
    result = nodes.reshape(-1).clone()
    # in order: where a place is written twice the last one stays, as on a CPU
    result[places.reshape(-1)] = _nodes(dag, source).expand(places.shape).reshape(-1)
    return Entries(result.reshape(nodes.shape))


def _added(dag: Dag, x: Any, place: Place, source: Any) -> Entries:
    nodes, places = _written(dag, x, place)
    terms = defaultdict(list, {at: [node] for at, node in enumerate(nodes.reshape(-1).tolist())})
    spread = _nodes(dag, source).expand(places.shape)
    for at, node in zip(places.reshape(-1).tolist(), spread.reshape(-1).tolist(), strict=True):
        terms[at].append(node)
    flat = [dag.total(terms[at]) for at in range(nodes.numel())]
    return Entries(torch.tensor(flat, dtype=torch.int64).reshape(nodes.shape))


def _require_constant(*indices: Any) -> None:
    if any(isinstance(index, Entries) for index in indices):
        raise RefusedError("where it writes depends on the point")


def _by_index(place: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    return place[tuple(slice(None) if index is None else index for index in indices)]


def _index_put(dag: Dag, x: Any, indices: Any, values: Any, accumulate: bool = False) -> Entries:
    _require_constant(*indices)
    return (_added if accumulate else _put)(dag, x, partial(_by_index, indices=indices), values)


def _index_add(dag: Dag, x: Any, dim: int, index: Any, source: Any, alpha: float = 1) -> Entries:
    _require_constant(index)
    scaled = source if alpha == 1 else elementwise(dag, "mul", source, alpha)
    return _added(dag, x, lambda places: _selected(places, dim, index), scaled)


def _index_copy(dag: Dag, x: Any, dim: int, index: Any, source: Any) -> Entries:
    _require_constant(index)
    return _put(dag, x, lambda places: _selected(places, dim, index), source)


def _selected(places: Tensor, dim: int, index: Tensor) -> Tensor:
    return places.index_select(dim, index) if places.ndim else places


def _scattered(write: Callable[..., Entries]) -> Callable[..., Entries]:
    def rule(dag: Dag, x: Any, dim: int, index: Any, source: Any) -> Entries:
        _require_constant(index)
        nodes = _nodes(dag, source)
        if nodes.ndim == index.ndim:  # of a larger source torch takes the beginning
            nodes = nodes[tuple(slice(size) for size in index.shape)]
        return write(dag, x, lambda places: _along(places, dim, index), Entries(nodes))

    return rule


def _along(places: Tensor, dim: int, index: Tensor) -> Tensor:
    # `gather` would not take an index that is shorter than what is written into
    parts = torch.meshgrid(*(torch.arange(size) for size in index.shape), indexing="ij")
    chosen = [
        index if axis == dim % max(index.ndim, 1) else part for axis, part in enumerate(parts)
    ]
    return places[tuple(chosen)] if places.ndim else places


def _scatter_reduce(
    dag: Dag, x: Any, dim: int, index: Any, source: Any, *how: str, **options: Any
) -> Entries:
    if how != ("sum",) or options:
        raise RefusedError("it reduces where an index says, and not by sums alone")
    return _scattered(_added)(dag, x, dim, index, source)


PLACING: dict[str, Callable[..., Entries]] = {
    "index_put": _index_put,
    "_unsafe_index_put": _index_put,
    "index_add": _index_add,
    "index_copy": _index_copy,
    "scatter.src": _scattered(_put),
    "scatter.value": _scattered(_put),
    "scatter_add": _scattered(_added),
    "scatter_reduce": _scatter_reduce,
}
