"""A program as loops: each formula is compiled once, and runs over all nodes that have it.

What the unrolled kernel of `pipeline.autograd.scalar.emit` writes out for every node is looked up
in tables here, so that the code does not grow with the number of entries. A tile of points fills
the lanes of vector registers, as there; results are calculated piece by piece and turned, in the
cache, into rows of points.
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
from pipeline.autograd.scalar.emit import CTYPES, Kernel, Program, call, spell_number
from pipeline.autograd.scalar.formulas import Formula, Instance, Place, Reader
from pipeline.autograd.scalar.operations import POWER, spell

PIECE = 256  # results that are turned together: 8 KB of registers' contents
SEGMENT = 64  # terms that are added up on their own: the error grows with segments, not terms
KEEP, PUT, ADD, WATCH, TURN = range(5)

TEMPLATE = """
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>
#include <ATen/cpu/vec/vec.h>
using T = {ctype};
using V = at::vec::Vectorized<T>;
constexpr int64_t L = V::size(), PIECE = {piece};
constexpr T INF = std::numeric_limits<T>::infinity(), NAN_ = std::numeric_limits<T>::quiet_NaN();
struct Task {{ int32_t formula, kind, begin, end, to; }};
struct Table {{ const int32_t* slots; const T* constants; const int32_t* to; }};
struct Sizes {{ int64_t inputs, slots, tasks; }};
{power}{formulas}
template <int S, int C, class F>
static inline void run(F f, const Task& task, const Table& table, T* slots, T* row, V& watch) {{
  const int32_t* at = table.slots + int64_t(task.begin) * S;
  const T* constants = table.constants + int64_t(task.begin) * C;
  const int32_t* places = table.to;
  const int64_t end = task.end, base = task.to;  // copies: what is stored could be these
  int64_t e = task.begin;
  V kept = watch;
  if (task.kind == {ADD}) {{
    V even(0), odd(0);  // one alone would wait for its own sum
    for (; e + 2 <= end; e += 2, at += 2 * S, constants += 2 * C) {{
      even = even + f(slots, at, constants, kept);
      odd = odd + f(slots, at + S, constants + C, kept);
    }}
    if (e < end) even = even + f(slots, at, constants, kept);
    T* to = slots + base * L;
    (V::loadu(to) + (even + odd)).store(to);
  }} else if (task.kind == {WATCH}) {{
    for (; e < end; ++e, at += S, constants += C) f(slots, at, constants, kept);
  }} else {{
    T* to = (task.kind == {KEEP} ? slots : row) - base * L;
    for (; e < end; ++e, at += S, constants += C)
      f(slots, at, constants, kept).store(to + int64_t(places[e]) * L);
  }}
  watch = kept;
}}
static inline void transpose(V* rows) {{
  V other[L];
  for (int64_t step = 1; step < L; step *= 2) {{
    for (int64_t a = 0; a < L / 2; ++a)
      std::tie(other[2 * a], other[2 * a + 1]) = at::vec::interleave2(rows[a], rows[a + L / 2]);
    for (int64_t a = 0; a < L; ++a) rows[a] = other[a];
  }}
}}
static inline void enter(const T* from, int64_t width, T* to, int64_t lanes) {{
  int64_t i = 0;
  for (; lanes == L && i + L <= width; i += L) {{
    V rows[L];
    for (int64_t a = 0; a < L; ++a) rows[a] = V::loadu(from + a * width + i);
    transpose(rows);
    for (int64_t a = 0; a < L; ++a) rows[a].store(to + (i + a) * L);
  }}
  for (; i < width; ++i)
    for (int64_t a = 0; a < L; ++a) to[i * L + a] = from[std::min(a, lanes - 1) * width + i];
}}
static inline void turn(const T* from, int64_t count, T* to, int64_t width, int64_t lanes) {{
  int64_t i = 0;
  for (; lanes == L && i + L <= count; i += L) {{
    V rows[L];
    for (int64_t a = 0; a < L; ++a) rows[a] = V::loadu(from + (i + a) * L);
    transpose(rows);
    for (int64_t a = 0; a < L; ++a) rows[a].store(to + a * width + i);
  }}
  for (; i < count; ++i)
    for (int64_t a = 0; a < lanes; ++a) to[a * width + i] = from[i * L + a];
}}
extern "C" int kernel(const T* points, T* const* results, T* flags, int64_t count, int threads,
                      const Sizes* sizes, const Task* tasks, const Table* tables,
                      const int64_t* widths) {{
  int flagged = 0;
  const int64_t N = sizes->inputs;
#pragma omp parallel num_threads(threads) reduction(|:flagged)
  {{
    std::vector<T> space((sizes->slots + 1) * L);
    T* slots = space.data();
    alignas(64) T row[PIECE * L];
    alignas(64) T flag[L];
#pragma omp for schedule(static)
    for (int64_t first = 0; first < count; first += L) {{
      const int64_t lanes = std::min(L, count - first);
      enter(points + first * N, N, slots, lanes);
      std::fill(slots + N * L, slots + sizes->slots * L, T(0));
      V watch(0);
      for (const Task* task = tasks; task != tasks + sizes->tasks; ++task)
        switch (task->formula) {{
{cases}
        default: {{
          const int64_t width = widths[task->formula - {count}];
          turn(row, task->end - task->begin,
               results[task->formula - {count}] + first * width + task->begin, width, lanes);
        }}
        }}
      watch.store(flag);
      for (int64_t lane = 0; lane < lanes; ++lane) {{
        flags[first + lane] = flag[lane];
        flagged |= flag[lane] != flag[lane];
      }}
    }}
  }}
  return flagged;
}}
"""
FORMULA = """
static inline V formula{number}(const T* slots, const int32_t* at, const T* constants, V& watch) {{
{body}
}}
"""
CASE = (
    "        case {number}: run<{slots}, {constants}>"
    "(formula{number}, *task, tables[{number}], slots, row, watch); break;"
)


@dataclass(frozen=True)
class Job:
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
        jobs: Formula -> its calculations, in their order.
        turns: The pieces of the results.
        slots: Node -> slot of its value, of inputs and of what is kept.
    """

    program: Program
    jobs: dict[Formula, list[Job]]
    turns: list[Turn]
    slots: dict[int, int]

    @cached_property
    def fixed(self) -> list[list[float | None]]:
        """Constants of each formula that are the same for all of its nodes; None for the others."""
        columns = [
            zip(*(job.instance.constants for job in jobs), strict=True)
            for jobs in self.jobs.values()
        ]
        return [[_common(column) for column in each] for each in columns]

    @cached_property
    def statements(self) -> int:
        """Operations that are compiled."""
        return sum(len(formula.steps) + 1 for formula in self.jobs)

    @cached_property
    def operations(self) -> int:
        """Operations at a point."""
        return sum((len(formula.steps) + 1) * len(jobs) for formula, jobs in self.jobs.items())

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
    found: dict[Formula, list[Job]] = defaultdict(list)
    jobs = list(_kept(cuts, slot_of, reader))
    last = max(cuts.stages.values(), default=-1) + 1
    turns = list(_turns(places, last))
    for turn in turns:
        nodes_of = places[turn.level][turn.begin : turn.end]
        for place, node in enumerate(nodes_of, turn.begin):
            jobs.append(Job(turn.phase, PUT, place, turn.begin, reader.of(node)))
    alone = [node for node in program.watched if node not in reader.read]
    jobs += [Job(last + len(turns), WATCH, 0, 0, reader.of(node)) for node in alone]
    for job in jobs:
        found[job.instance.formula].append(job)
    return Loops(program, dict(found), turns, slot_of)


def _kept(cuts: Cuts, slot_of: dict[int, int], reader: Reader) -> Iterator[Job]:
    """What is calculated for its slot; the terms of long sums."""
    for node in cuts.order:
        slot, phase = slot_of[node], cuts.stages[node]
        if node not in cuts.terms:
            yield Job(phase, KEEP, slot, 0, reader.of(node, looked_up=False))
        for term in cuts.terms.get(node, ()):
            yield Job(phase, ADD, slot, slot, reader.of(term))


def _turns(places: list[list[int]], phase: int) -> Iterator[Turn]:
    """The pieces of all results, a phase for each."""
    pieces = (
        (number, begin, min(begin + PIECE, len(level)))
        for number, level in enumerate(places)
        for begin in range(0, len(level), PIECE)
    )
    for offset, piece in enumerate(pieces):
        yield Turn(phase + offset, *piece)


def source(loops: Loops) -> str:
    """Write the formulas in C++, with what runs them.

    Args:
        loops: What is calculated; numbers of nodes have no influence.

    Returns:
        The source of one function ``kernel``.
    """
    return TEMPLATE.format(
        ctype=CTYPES[loops.program.dag.dtype],
        piece=PIECE,
        power=POWER,
        count=len(loops.jobs),
        KEEP=KEEP,
        ADD=ADD,
        WATCH=WATCH,
        formulas="".join(
            FORMULA.format(number=number, body="\n".join(_lines(formula, fixed)))
            for number, (formula, fixed) in enumerate(zip(loops.jobs, loops.fixed, strict=True))
        ),
        cases="\n".join(
            CASE.format(number=number, slots=formula.slots, constants=formula.constants)
            for number, formula in enumerate(loops.jobs)
        ),
    )


def compile_loops(loops: Loops) -> Kernel:
    """Compile the formulas, and make the tables.

    Args:
        loops: What is calculated.

    Returns:
        As `pipeline.autograd.scalar.emit.compile_kernel`.
    """
    from torch._inductor.codecache import CppCodeCache

    library = CppCodeCache.load(source(loops), device_type="cpu")
    tasks = torch.tensor(list(_tasks(loops)), dtype=torch.int32)
    tables = [_table(loops, jobs) for jobs in loops.jobs.values()]
    addresses = torch.tensor([[part.data_ptr() for part in table] for table in tables])
    sizes = torch.tensor([loops.inputs, len(loops.slots), len(tasks)])
    widths = torch.tensor([level.numel() for level in loops.program.levels])
    held = (tables, sizes, tasks, addresses.reshape(-1), widths)
    pointers = [ctypes.c_void_p(part.data_ptr()) for part in held[1:]]

    def kernel(points: Tensor, results: Sequence[Tensor], flags: Tensor) -> bool:
        assert held  # the pointers are into these
        return call(library.kernel, points, results, flags, *pointers)

    return kernel


def _lines(formula: Formula, fixed: Sequence[float | None]) -> Iterator[str]:
    """Statements of a formula; constants that are the same for all nodes are written out."""

    def spelled(place: Place) -> str:
        return f"{place[0]}{place[1]}"

    for number in range(formula.slots):
        yield f"  const V slot{number} = V::loadu(slots + at[{number}] * L);"
    for number, value in enumerate(fixed):
        text = f"constants[{number}]" if value is None else spell_number(value)
        yield f"  const V constant{number}({text});"
    for truth in sorted({arg for _, args in formula.steps for arg in args if arg[0] == "truth"}):
        yield f"  const V {spelled(truth)} = V(0) {'==' if truth[1] else '!='} V(0);"
    for number, (name, args) in enumerate(formula.steps):
        values = [fixed[index] if kind == "constant" else None for kind, index in args]
        yield f"  const V step{number} = {spell(name, [spelled(arg) for arg in args], values)};"
    for place in formula.watched:
        yield f"  watch = at::vec::fmadd({spelled(place)}, V(0), watch);"
    yield f"  return {spelled(formula.result)};"


def _tasks(loops: Loops) -> list[tuple[int, int, int, int, int]]:
    """(formula, kind, begin, end, base) of what runs, in order; results are turned by formulas behind the last."""
    found = []
    for number, jobs in enumerate(loops.jobs.values()):
        begin = 0
        for _, run in groupby(jobs, key=lambda job: (job.phase, job.kind, job.base)):
            length = len(list(run))
            first, end = jobs[begin], begin + length
            step = SEGMENT if first.kind == ADD else length
            found += [
                (first.phase, number, first.kind, start, min(start + step, end), first.base)
                for start in range(begin, end, step)
            ]
            begin = end
    count = len(loops.jobs)
    found += [
        (turn.phase, count + turn.level, TURN, turn.begin, turn.end, 0) for turn in loops.turns
    ]
    return [task[1:] for task in sorted(found)]


def _table(loops: Loops, jobs: list[Job]) -> tuple[Tensor, Tensor, Tensor]:
    slots = [[loops.slots[node] for node in job.instance.slots] for job in jobs]
    constants = [job.instance.constants for job in jobs]
    return (
        torch.tensor(slots, dtype=torch.int32),
        torch.tensor(constants, dtype=loops.program.dag.dtype),
        torch.tensor([job.to for job in jobs], dtype=torch.int32),
    )


def _common(numbers: Sequence[float]) -> float | None:
    """The number that all are, to the bit."""
    first = numbers[0]
    packed = struct.pack("d", first)
    return first if all(struct.pack("d", number) == packed for number in numbers) else None
