"""A program as loops: each formula is compiled once, and runs over all nodes that have it.

What the unrolled kernel of `pipeline.autograd.scalar.emit` writes out for every node is looked up
in tables here, so that the code does not grow with the number of entries.
"""

from __future__ import annotations

import ctypes
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from pipeline.autograd.scalar.cuts import Cuts, cut
from pipeline.autograd.scalar.emit import Kernel, Program, call
from pipeline.autograd.scalar.formulas import Formula, Instance, Reader
from pipeline.autograd.scalar.loop_source import (
    ADD,
    KEEP,
    PIECE,
    PUT,
    TURN,
    WATCH,
    Constants,
    source,
)

SEGMENT = 64  # terms that are added up on their own: the error grows with segments, not terms


@dataclass(frozen=True)
class Calculation:
    """One calculation of a formula and what becomes of it.

    Attributes:
        phase: When: all of a phase is done before the next one.
        kind: KEEP in a slot, PUT into a piece of results, ADD to a slot, or WATCH alone.
        to: The slot, or the place in the result.
        base: First place of the piece, or the slot that is added to; 0 else.
        instance: The formula, with what it looks up.
    """

    phase: int
    kind: int
    to: int
    base: int
    instance: Instance


@dataclass(frozen=True)
class Turn:
    """The end of a piece of results.

    Attributes:
        phase: Of the piece.
        level: Number of the result.
        begin: First place.
        end: Behind the last one.
    """

    phase: int
    level: int
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class Loops:
    """A program as formulas and tables.

    Attributes:
        program: What is calculated.
        calculations: Formula -> its calculations, in their order.
        turns: The pieces of the results.
        slots: Node -> slot of its value, of inputs and of what is kept.
    """

    program: Program
    calculations: dict[Formula, list[Calculation]]
    turns: list[Turn]
    slots: dict[int, int]

    @cached_property
    def fixed(self) -> dict[Formula, Constants]:
        """Constants of each formula that are the same for all of its nodes; None for the others."""
        columns = {
            formula: zip(*(each.instance.constants for each in calculations), strict=True)
            for formula, calculations in self.calculations.items()
        }
        return {formula: [*map(_common, column)] for formula, column in columns.items()}

    @property
    def source(self) -> str:
        """The formulas in C++; numbers of nodes have no influence."""
        return source(self.program.dag.dtype, self.fixed)

    @cached_property
    def statements(self) -> int:
        """Operations that are compiled."""
        return sum(len(formula.steps) + 1 for formula in self.calculations)

    @cached_property
    def operations(self) -> int:
        """Operations at a point."""
        return sum(
            (len(formula.steps) + 1) * len(calculations)
            for formula, calculations in self.calculations.items()
        )

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each result at a point."""
        return [tuple(level.shape) for level in self.program.levels]

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return self.program.inputs

    def compile(self) -> Kernel:
        """See `compile_loops`."""
        return compile_loops(self)


def arrange(program: Program) -> Loops:
    """Find the formulas of a program.

    Args:
        program: What is calculated.

    Returns:
        Its loops.
    """
    nodes = program.nodes
    places = [level.reshape(-1).tolist() for level in program.levels]
    cuts = cut(program.dag, nodes, (node for level in places for node in level))
    slot_of = {node: program.inputs + number for number, node in enumerate(cuts.order)}
    slot_of |= {program.dag.variable(index): index for index in range(program.inputs)}
    reader = Reader(program.dag, slot_of.__contains__)
    found: dict[Formula, list[Calculation]] = defaultdict(list)
    calculations = list(_kept(cuts, slot_of, reader))
    last = max(cuts.stages.values(), default=-1) + 1
    turns = list(_turns(places, last))
    for turn in turns:
        nodes_of = places[turn.level][turn.begin : turn.end]
        for place, node in enumerate(nodes_of, turn.begin):
            calculations.append(Calculation(turn.phase, PUT, place, turn.begin, reader.of(node)))
    alone = [node for node in program.watched if node not in reader.read]
    calculations += [Calculation(last + len(turns), WATCH, 0, 0, reader.of(node)) for node in alone]
    for each in calculations:
        found[each.instance.formula].append(each)
    return Loops(program, dict(found), turns, slot_of)


def _kept(cuts: Cuts, slot_of: dict[int, int], reader: Reader) -> Iterator[Calculation]:
    """What is calculated for its slot; the terms of long sums."""
    for node in cuts.order:
        slot, phase = slot_of[node], cuts.stages[node]
        if node not in cuts.terms:
            yield Calculation(phase, KEEP, slot, 0, reader.of(node, looked_up=False))
        for term in cuts.terms.get(node, ()):
            yield Calculation(phase, ADD, slot, slot, reader.of(term))


def _turns(places: list[list[int]], phase: int) -> Iterator[Turn]:
    """The pieces of all results, a phase for each."""
    pieces = (
        (number, begin, min(begin + PIECE, len(level)))
        for number, level in enumerate(places)
        for begin in range(0, len(level), PIECE)
    )
    for offset, piece in enumerate(pieces):
        yield Turn(phase + offset, *piece)


def compile_loops(loops: Loops) -> Kernel:
    """Compile the formulas, and make the tables.

    Args:
        loops: What is calculated.

    Returns:
        As `pipeline.autograd.scalar.emit.compile_kernel`.
    """
    from torch._inductor.codecache import CppCodeCache

    library = CppCodeCache.load(loops.source, device_type="cpu")
    tasks = torch.tensor(list(_tasks(loops)), dtype=torch.int32)
    tables = [_table(loops, calculations) for calculations in loops.calculations.values()]
    addresses = torch.tensor([[part.data_ptr() for part in table] for table in tables])
    sizes = torch.tensor([loops.inputs, len(loops.slots), len(tasks)])
    widths = torch.tensor([level.numel() for level in loops.program.levels])
    held = (tables, sizes, tasks, addresses.reshape(-1), widths)
    pointers = [ctypes.c_void_p(part.data_ptr()) for part in held[1:]]

    def kernel(points: Tensor, results: Sequence[Tensor], flags: Tensor) -> bool:
        assert held  # the pointers are into these
        return call(library.kernel, points, results, flags, *pointers)

    return kernel


def _tasks(loops: Loops) -> list[tuple[int, int, int, int, int]]:
    """(formula, kind, begin, end, base) of what runs, in order; results are turned by formulas behind the last."""
    found = []
    for number, calculations in enumerate(loops.calculations.values()):
        begin = 0
        for _, run in groupby(calculations, key=lambda each: (each.phase, each.kind, each.base)):
            length = len(list(run))
            first, end = calculations[begin], begin + length
            step = SEGMENT if first.kind == ADD else length
            found += [
                (first.phase, number, first.kind, start, min(start + step, end), first.base)
                for start in range(begin, end, step)
            ]
            begin = end
    count = len(loops.calculations)
    found += [
        (turn.phase, count + turn.level, TURN, turn.begin, turn.end, 0) for turn in loops.turns
    ]
    return [task[1:] for task in sorted(found)]


def _table(loops: Loops, calculations: list[Calculation]) -> tuple[Tensor, Tensor, Tensor]:
    slots = [[loops.slots[node] for node in each.instance.slots] for each in calculations]
    constants = [each.instance.constants for each in calculations]
    return (
        torch.tensor(slots, dtype=torch.int32),
        torch.tensor(constants, dtype=loops.program.dag.dtype),
        torch.tensor([each.to for each in calculations], dtype=torch.int32),
    )


def _common(numbers: Sequence[float]) -> float | None:
    """The number that all are, to the bit."""
    first = numbers[0]
    packed = struct.pack("d", first)
    return first if all(struct.pack("d", number) == packed for number in numbers) else None
