"""Colourings: which columns or rows of a matrix can be evaluated together and told apart.

Sources: A. R. Curtis, M. J. D. Powell, J. K. Reid, On the estimation of sparse Jacobian matrices
(1974); T. F. Coleman, J. J. Moré (1983, 1984); A. H. Gebremedhin, F. Manne, A. Pothen, What color is
your Jacobian? (SIAM Review 47, 2005); A. H. Gebremedhin, A. Tarafdar, F. Manne, A. Pothen (2007).

A colour is a bit: the colours that are forbidden to a vertex are the bits of one Python integer.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush

import torch
from torch import Tensor

from pipeline.autograd.pattern import Pattern

Neighbours = Sequence[Sequence[int]]
MOST_STEPS = 20_000  # pairs of entries of a row: more orders than two, which take 20 ms
ROUNDS = 4


def color_columns(pattern: Pattern) -> Tensor:
    """Colour columns so that no two of one colour have an entry in the same row.

    Args:
        pattern: Of an (m, n) matrix.

    Returns:
        Colour of each column from 0 on, int64 (n,).
    """
    rows_of, columns_of = _lists(pattern)
    least = max((len(columns) for columns in columns_of), default=0)
    return _best(
        rows_of, columns_of, least, lambda order: _color_distance_2(rows_of, columns_of, order)
    )


def color_rows(pattern: Pattern) -> Tensor:
    """Colour rows so that no two of one colour have an entry in the same column.

    Args:
        pattern: Of an (m, n) matrix.

    Returns:
        Colour of each row from 0 on, int64 (m,).
    """
    return color_columns(transposed(pattern))


def color_star(pattern: Pattern) -> Tensor:
    """Colour a symmetric matrix so that every path over four vertices has three colours.

    Then of every pair (i, j), (j, i) one is alone in its row among the columns of its colour.

    Args:
        pattern: Symmetric, (n, n).

    Returns:
        Colour of each column from 0 on, int64 (n,).
    """
    graph = _graph(pattern)
    return _best(graph, graph, _least_star(graph), lambda order: _color_star(graph, order))


def color_acyclic(pattern: Pattern) -> Tensor:
    """Colour a symmetric matrix so that every cycle has three colours.

    Then two colours induce a forest, and its entries follow one after the other from the leaves
    (`pipeline.autograd.sparsity.substitution`).

    Args:
        pattern: Symmetric, (n, n).

    Returns:
        Colour of each column from 0 on, int64 (n,).
    """
    graph = _graph(pattern)
    return _best(graph, graph, 1 + any(graph), lambda order: _color_acyclic(graph, order))


def color_both(pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Colour columns and rows so that every entry is alone in its row or in its column.

    A star colouring of the symmetric matrix (0, A; A^T, 0); a colour that no entry needs is given
    up (SparseMatrixColorings.jl does the same: Montoison, Dalle & Gebremedhin 2025).

    Args:
        pattern: Of an (m, n) matrix.

    Returns:
        Colour of each column (n,) and of each row (m,), each from 0 on; -1 for what is not evaluated.
    """
    m, n = pattern.shape
    rows_of, columns_of = _lists(pattern)
    graph = [*([n + row for row in rows] for rows in rows_of), *columns_of]
    colors = _best(graph, graph, _least_star(graph), lambda order: _color_star(graph, order))
    columns, rows = colors[:n].clone(), colors[n:].clone()
    by_column, by_row = is_alone(pattern, columns), is_alone(transposed(pattern), rows)
    by_row = by_row[torch.argsort(pattern.columns * m + pattern.rows).argsort()]
    needed = _needed(columns[pattern.columns], rows[pattern.rows], by_column, by_row)
    return tuple(_kept(each, needed) for each in (columns, rows))  # type: ignore[return-value]


def transposed(pattern: Pattern) -> Pattern:
    """Swap rows and columns.

    Args:
        pattern: Of an (m, n) matrix.

    Returns:
        Of its transposed, (n, m).
    """
    m, n = pattern.shape
    return Pattern.of_flat(pattern.columns * m + pattern.rows, (n, m), pattern.notes)


def is_alone(pattern: Pattern, colors: Tensor) -> Tensor:
    """Tell which entries are alone in their row among the columns of their colour.

    Args:
        pattern: Of an (m, n) matrix.
        colors: Colour of each column, (n,); columns of a negative colour are not evaluated.

    Returns:
        bool (nnz,).
    """
    of_entry = colors[pattern.columns]
    count = int(colors.max()) + 1 if len(colors) else 0
    place = pattern.rows * max(count, 1) + of_entry.clamp_min(0)
    others = torch.zeros(max(pattern.shape[0] * max(count, 1), 1), dtype=torch.int64)
    others.index_add_(0, place, (of_entry >= 0).to(torch.int64))
    return (others[place] == 1) & (of_entry >= 0)


def _needed(columns: Tensor, rows: Tensor, by_column: Tensor, by_row: Tensor) -> set[int]:
    """Colours without which an entry could not be told, as few as a greedy choice finds."""
    needed = set(columns[~by_row].tolist()) | set(rows[~by_column].tolist())
    for column, row in torch.unique(torch.stack([columns, rows], 1), dim=0).tolist():
        if column not in needed and row not in needed:
            needed.add(column)
    return needed


def _kept(colors: Tensor, needed: set[int]) -> Tensor:
    chosen = sorted(needed & set(colors.tolist()))
    numbers = torch.full((int(colors.max()) + 1 if len(colors) else 1,), -1, dtype=torch.int64)
    numbers[torch.tensor(chosen, dtype=torch.int64)] = torch.arange(len(chosen))
    return numbers[colors]


def _lists(pattern: Pattern) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of each column, and columns of each row."""
    by_column = pattern.columns.argsort(stable=True)
    rows_of = _split(pattern.rows[by_column], pattern.columns, pattern.shape[1])
    return rows_of, _split(pattern.columns, pattern.rows, pattern.shape[0])


def _graph(pattern: Pattern) -> list[list[int]]:
    off = pattern.rows != pattern.columns
    return _split(pattern.columns[off], pattern.rows[off], pattern.shape[0])


def _split(entries: Tensor, owners: Tensor, count: int) -> list[list[int]]:
    """Entries of each owner, where they are in the order of their owners."""
    ends, flat = torch.bincount(owners, minlength=count).cumsum(0).tolist(), entries.tolist()
    return [flat[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _least_star(graph: Neighbours) -> int:
    """Colours that a star colouring cannot do without: 2 suffice for stars, and for nothing else."""
    if not any(graph):
        return 1
    stars = all(
        len(others) == 1 or all(len(graph[other]) == 1 for other in others) for others in graph
    )
    return 2 if stars else 3


def _best(
    near: Neighbours, back: Neighbours, least: int, color: Callable[[Iterable[int]], list[int]]
) -> Tensor:
    """The colouring of the order that takes fewest colours; no more orders than can help."""
    best: list[int] = []
    for order in _orders(near, back):
        best = _fewer(best, color(order))
        if not best or max(best) + 1 <= least:
            return torch.tensor(best, dtype=torch.int64)
    for _ in range(ROUNDS if near is not back else 0):
        # class by class: no more colours are needed and often fewer (Culberson 1992)
        before, turned = best, sorted(range(len(near)), key=lambda vertex: -best[vertex])
        best = _fewer(color(turned), best)
        if max(best) in (max(before), least - 1):
            break
    return torch.tensor(best, dtype=torch.int64)


def _fewer(one: list[int], other: list[int]) -> list[int]:
    return one if one and max(one) <= max(other) else other


def _orders(near: Neighbours, back: Neighbours) -> Iterable[Iterable[int]]:
    """Natural, largest first, random, smallest last, incidence degree: one after the other."""
    size = len(near)
    yield range(size)
    sizes = [len(vertices) for vertices in back]
    around = [sum(map(sizes.__getitem__, middles)) for middles in near]
    if len(set(around)) > 1:
        yield sorted(range(size), key=lambda vertex: -around[vertex])
    if sum(around) <= MOST_STEPS:
        mixed = list(range(size))
        random.Random(0).shuffle(mixed)
        yield mixed
        yield _by_degree(near, back, around, last=True)
        yield _by_degree(near, back, around, last=False)


def _by_degree(near: Neighbours, back: Neighbours, around: Sequence[int], last: bool) -> list[int]:
    """Smallest last (take out what has fewest left around it), or most taken ones around it first."""
    degree = list(around) if last else [0] * len(near)
    heap = [(degree[vertex], -around[vertex], vertex) for vertex in range(len(near))]
    heapify(heap)
    order, done = [], [False] * len(near)
    while heap:
        weight, _, vertex = heappop(heap)
        if done[vertex] or weight != degree[vertex]:
            continue
        done[vertex] = True
        order.append(vertex)
        for middle in near[vertex]:
            for other in back[middle]:
                if not done[other]:
                    degree[other] -= 1
                    heappush(heap, (degree[other], -around[other], other))
    return order[::-1] if last else order


def _lowest_free(forbidden: int) -> int:
    """Position of the lowest bit that is not set."""
    return ((forbidden + 1) & ~forbidden).bit_length() - 1


def _color_distance_2(
    rows_of: Neighbours, columns_of: Neighbours, order: Iterable[int]
) -> list[int]:
    used, colors = [0] * len(columns_of), [0] * len(rows_of)
    for column in order:
        forbidden = 0
        for row in rows_of[column]:
            forbidden |= used[row]
        colors[column] = color = _lowest_free(forbidden)
        for row in rows_of[column]:
            used[row] |= 1 << color
    return colors


def _color_star(graph: Neighbours, order: Iterable[int]) -> list[int]:
    """Greedy star colouring (Gebremedhin et al. 2007, algorithm 4.1), in steps as many as entries."""
    # forbidden to a vertex v: the colours of its neighbours w; where w has no colour yet, those of
    # all neighbours of w; else those of neighbours x of w that have another neighbour of w's colour
    colors = [-1] * len(graph)
    around = [0] * len(graph)  # colours of the neighbours of a vertex
    middles = [0] * len(
        graph
    )  # colours of neighbours x with another neighbour of the vertex's colour
    first: dict[
        tuple[int, int], int
    ] = {}  # (x, colour) -> the first neighbour of x with that colour
    for vertex in order:
        forbidden = 0
        for other in graph[vertex]:
            if colors[other] < 0:
                forbidden |= around[other]
            else:
                forbidden |= 1 << colors[other] | middles[other]
        colors[vertex] = color = _lowest_free(forbidden)
        for other in graph[vertex]:
            around[other] |= 1 << color
            twin = first.setdefault((other, color), vertex)
            if twin != vertex and colors[other] >= 0:
                middles[vertex] |= 1 << colors[other]
                middles[twin] |= 1 << colors[other]
    return colors


def _color_acyclic(graph: Neighbours, order: Iterable[int]) -> list[int]:
    """Greedy acyclic colouring: the trees that pairs of colours induce are kept by union-find."""
    # forbidden to a vertex: a colour with which two of its neighbours of one colour lie in one tree
    colors, trees = [-1] * len(graph), _Trees()
    for vertex in order:
        by_color: dict[int, list[int]] = defaultdict(list)
        for other in graph[vertex]:
            if colors[other] >= 0:
                by_color[colors[other]].append(other)
        forbidden = sum(1 << color for color in by_color)
        color = _lowest_free(forbidden)
        while any(trees.meet(color, other, same) for other, same in by_color.items()):
            forbidden |= 1 << color
            color = _lowest_free(forbidden)
        colors[vertex] = color
        for other, same in by_color.items():
            trees.join(color, other, vertex, same)
    return colors


class _Trees:
    """The trees that pairs of colours induce."""

    def __init__(self) -> None:
        self._parent: dict[tuple[int, int, int], int] = {}

    def meet(self, a: int, b: int, vertices: Sequence[int]) -> bool:
        """Tell whether two of the vertices lie in one tree of the colours a and b."""
        roots = [self._root(a, b, vertex) for vertex in vertices]
        return len(set(roots)) < len(roots)

    def join(self, a: int, b: int, center: int, vertices: Sequence[int]) -> None:
        """Hang vertices on a center."""
        low, high = min(a, b), max(a, b)
        for vertex in vertices:
            self._parent[low, high, self._root(a, b, vertex)] = self._root(a, b, center)

    def _root(self, a: int, b: int, vertex: int) -> int:
        low, high = min(a, b), max(a, b)
        path = []
        while (parent := self._parent.get((low, high, vertex), vertex)) != vertex:
            path.append(vertex)
            vertex = parent
        for each in path:
            self._parent[low, high, each] = vertex
        return vertex
