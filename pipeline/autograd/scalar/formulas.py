"""Formulas: what many nodes of a graph have in common but for the numbers that they look up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.autograd.scalar.dag import Dag
from pipeline.autograd.scalar.operations import OPERATIONS

Place = tuple[str, int]  # "step", "slot", "constant" or "truth", and which
Step = tuple[str, tuple[Place, ...]]


@dataclass(frozen=True)
class Formula:
    """Operations on slots and constants.

    Attributes:
        steps: Operation and where its arguments are.
        result: Where the result is.
        slots: Number of slots.
        constants: Number of constants.
    """

    steps: tuple[Step, ...]
    result: Place
    slots: int
    constants: int

    @property
    def watched(self) -> list[Place]:
        """Slots and steps whose infinities or NaN no later step would show, the result included."""
        shown = {arg for name, args in self.steps if not OPERATIONS[name].absorbs for arg in args}
        steps = [
            ("step", number)
            for number, (name, _) in enumerate(self.steps)
            if not OPERATIONS[name].mask
        ]
        slots = [("slot", number) for number in range(self.slots)]
        return [place for place in slots + steps if place not in shown]


@dataclass(frozen=True)
class Instance:
    """A formula with what it looks up.

    Attributes:
        formula: The formula.
        slots: Nodes.
        constants: Numbers.
    """

    formula: Formula
    slots: tuple[int, ...]
    constants: tuple[float, ...]


class Reader:
    """Reads the formulas of nodes.

    Args:
        dag: The graph.
        is_slot: Whether the value of a node is looked up.
    """

    def __init__(self, dag: Dag, is_slot: Callable[[int], bool]) -> None:
        self._dag, self._is_slot = dag, is_slot
        self._known: dict[int, Instance] = {}
        self._formulas: dict[Formula, Formula] = {}
        self.read: set[int] = set()

    def of(self, node: int, looked_up: bool = True) -> Instance:
        """Read the formula of a node.

        Args:
            node: The node.
            looked_up: Take it from its slot, if it has one.

        Returns:
            The instance.
        """
        if not looked_up:
            return self._make(node, own=True)
        if node not in self._known:
            self._known[node] = self._make(node, own=False)
        return self._known[node]

    def _make(self, root: int, own: bool) -> Instance:
        steps: list[Step] = []
        places: dict[int, Place] = {}
        slots: list[int] = []
        constants: list[float] = []

        def place(node: int) -> Place:
            value = self._dag.value(node)
            if isinstance(value, bool):
                return "truth", int(value)
            # the same number twice is twice looked up: it may differ elsewhere
            if value is not None:
                constants.append(value)
                return "constant", len(constants) - 1
            if node not in places:
                places[node] = found(node)
            return places[node]

        def found(node: int) -> Place:
            self.read.add(node)
            if self._is_slot(node) and not (own and node == root):
                slots.append(node)
                return "slot", len(slots) - 1
            name, args = self._dag.nodes[node]
            steps.append((name, tuple([place(arg) for arg in args])))
            return "step", len(steps) - 1

        result = place(root)
        formula = Formula(tuple(steps), result, len(slots), len(constants))
        formula = self._formulas.setdefault(formula, formula)
        return Instance(formula, tuple(slots), tuple(constants))
