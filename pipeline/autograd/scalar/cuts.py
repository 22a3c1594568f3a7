"""Where a graph is cut: nodes whose values are kept, so that all other formulas are short.

What is kept is calculated before it is used, in stages. Sums of many terms are kept as well: their
terms are short formulas, added up one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.autograd.scalar.dag import Dag
from pipeline.autograd.scalar.operations import OPERATIONS

MOST_TERMS = 8  # of a sum that is written out
LONGEST = 48  # operations of a formula
DEAR = 12  # operations that are not repeated for a second use
HEAVY = 8  # an exponential, in additions


@dataclass(frozen=True)
class Cuts:
    """Nodes that are kept.

    Attributes:
        order: These nodes, so that everything is calculated before it is used.
        stages: Node -> number of its stage, from 0; it needs those of lower stages alone.
        terms: Node -> terms of a long sum.
    """

    order: list[int]
    stages: dict[int, int]
    terms: dict[int, list[int]]


def cut(dag: Dag, nodes: list[int], results: Iterable[int]) -> Cuts:
    """Choose what is kept.

    Args:
        dag: The graph.
        nodes: Everything that is calculated, arguments first.
        results: Nodes of the results, as often as they are stored.

    Returns:
        The cuts.
    """
    uses = _uses(dag, nodes, results)
    terms, inside = _long_sums(dag, nodes, uses)
    stages: dict[int, int] = {}
    depth: dict[int, int] = {}
    size: dict[int, int] = {}
    cost: dict[int, int] = {}
    for node in nodes:
        args = [arg for arg in terms.get(node, dag.arguments(node)) if dag.value(arg) is None]
        name = dag.nodes[node][0]
        if not args or node in inside:
            continue
        depth[node] = max(depth.get(arg, 0) for arg in args)
        size[node] = 1 + sum(size.get(arg, 0) for arg in args)
        cost[node] = _weight(name) + sum(cost.get(arg, 0) for arg in args)
        long = size[node] > LONGEST or (uses[node] > 1 and cost[node] >= DEAR)
        if node in terms or (long and not OPERATIONS[name].mask):
            stages[node] = depth[node]
            depth[node], size[node], cost[node] = depth[node] + 1, 0, 0
    return Cuts(sorted(stages, key=lambda node: (stages[node], node)), stages, terms)


def _weight(name: str) -> int:
    operation = OPERATIONS[name]
    return HEAVY if operation.absorbs and not operation.mask and name != "where" else 1


def _uses(dag: Dag, nodes: list[int], results: Iterable[int]) -> dict[int, int]:
    uses = dict.fromkeys(nodes, 0)
    for node in nodes:
        for arg in dag.arguments(node):
            uses[arg] += 1
    for node in results:
        uses[node] = uses.get(node, 0) + 1
    return uses


def _long_sums(
    dag: Dag, nodes: list[int], uses: dict[int, int]
) -> tuple[dict[int, list[int]], set[int]]:
    """Terms of every sum of many, and the sums that are only parts of these."""
    counts: dict[int, int] = {}
    parts: set[int] = set()
    for node in nodes:
        if dag.nodes[node][0] == "add":
            own = [arg for arg in dag.arguments(node) if arg in counts and uses[arg] == 1]
            parts.update(own)
            counts[node] = 2 - len(own) + sum(counts[arg] for arg in own)
    long = [node for node, count in counts.items() if count > MOST_TERMS and node not in parts]
    terms: dict[int, list[int]] = {}
    inside: set[int] = set()
    for root in long:
        terms[root] = found = []
        waiting = list(reversed(dag.arguments(root)))
        while waiting:
            node = waiting.pop()
            if node in parts:
                inside.add(node)
                waiting += reversed(dag.arguments(node))
            else:
                found.append(node)
    return terms, inside
