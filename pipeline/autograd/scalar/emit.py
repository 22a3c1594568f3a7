"""Writes a graph as one fused C++ loop over the batch, and compiles it by Inductor's own tools.

A tile of points fills the lanes of vector registers; every needed node is calculated once per
tile. Dense rows are then laid out from a template of their constant entries and the distinct
entries that were calculated. A point's result does not depend on the batch around it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.scalar.dag import Dag
from pipeline.autograd.scalar.operations import OPERATIONS, POWER, spell

FEW = 64  # entries of a row that are written one by one, with their constants
CTYPES = {torch.float64: "double", torch.float32: "float"}
Kernel = Callable[[Tensor, Sequence[Tensor], Tensor], bool]

TEMPLATE = """
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <ATen/cpu/vec/vec.h>
using T = {ctype};
using V = at::vec::Vectorized<T>;
constexpr int64_t L = V::size(), N = {inputs}, R = {rows};
constexpr T INF = std::numeric_limits<T>::infinity(), NAN_ = std::numeric_limits<T>::quiet_NaN();
{power}{tables}
extern "C" int kernel(const T* points, T* const* results, T* flags, int64_t count, int threads) {{
  int flagged = 0;
#pragma omp parallel num_threads(threads) reduction(|:flagged)
  {{
    alignas(64) T in[N][L];
    alignas(64) T row[R][L];
    alignas(64) T flag[L];
#pragma omp for schedule(static)
    for (int64_t first = 0; first < count; first += L) {{
      const int64_t lanes = std::min(L, count - first);
      for (int64_t lane = 0; lane < L; ++lane)
        for (int64_t i = 0; i < N; ++i)
          in[i][lane] = points[(first + std::min(lane, lanes - 1)) * N + i];
{body}
      for (int64_t lane = 0; lane < lanes; ++lane) {{
        flags[first + lane] = flag[lane];
        flagged |= flag[lane] != flag[lane];
{scatter}
      }}
    }}
  }}
  return flagged;
}}
"""
TABLES = """static const T TEMPLATE{k}[] = {{{template}}};
static const int32_t PLACE{k}[] = {{{places}}};
static const int32_t FROM{k}[] = {{{sources}}};
"""
POINTER = "        T* to{k} = results[{k}] + (first + lane) * {size};"
SCATTER = """
        std::memcpy(to{k}, TEMPLATE{k}, sizeof(TEMPLATE{k}));
        for (int64_t e = 0; e < {filled}; ++e) to{k}[PLACE{k}[e]] = row[FROM{k}[e]][lane];"""


@dataclass(frozen=True)
class Program:
    """What is to be calculated.

    Attributes:
        dag: The graph.
        inputs: Number of inputs n.
        levels: Nodes of each result, int64 of any shape.
    """

    dag: Dag
    inputs: int
    levels: Sequence[Tensor]

    @property
    def entries(self) -> list[int]:
        """Distinct nodes of the results that are not constant."""
        nodes = {node for level in self.levels for node in level.reshape(-1).tolist()}
        return sorted(node for node in nodes if self.dag.value(node) is None)

    @property
    def nodes(self) -> list[int]:
        """Everything that is calculated, arguments first."""
        return self.dag.needed([*self.entries, *self.dag.folded])

    @property
    def operations(self) -> int:
        """Number of operations at a point."""
        return len(self.nodes)

    @property
    def statements(self) -> int:
        """Number of operations that are compiled: all of them."""
        return len(self.nodes)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each result at a point."""
        return [tuple(level.shape) for level in self.levels]

    def compile(self) -> Kernel:
        """See `compile_kernel`."""
        return compile_kernel(self)

    @property
    def watched(self) -> list[int]:
        """Nodes whose infinities or NaN no other watched node would show.

        Sums, differences and products of what is not finite are not finite; so only results are
        watched, and operands of operations that can turn an infinity into a number.
        """
        shown: set[int] = set()
        for node in self.nodes:
            name, args = self.dag.nodes[node]
            if not OPERATIONS[name].absorbs:
                shown.update(args)
        return [
            node
            for node in self.nodes
            if node not in shown
            and self.dag.value(node) is None
            and not OPERATIONS[self.dag.nodes[node][0]].mask
        ]


def source(program: Program) -> str:
    """Write a program in C++.

    Args:
        program: What is to be calculated.

    Returns:
        The source of one function ``kernel(points, results, flags, count, threads)``.
    """
    rows = {node: row for row, node in enumerate(program.entries)}
    lines = [_statement(program.dag, node) for node in program.nodes]
    lines += [f"v{node}.store(row[{row}]);" for node, row in rows.items()]
    lines += ["V watch(0);", *(f"watch = watch + v{node} * V(0);" for node in program.watched)]
    lines += ["watch.store(flag);"]
    tables, scatter = zip(
        *(_layout(program, k, rows) for k in range(len(program.levels))), strict=True
    )
    return TEMPLATE.format(
        ctype=CTYPES[program.dag.dtype],
        inputs=program.inputs,
        rows=max(len(rows), 1),
        power=POWER,
        tables="".join(tables),
        body="\n".join("      " + line for line in lines if line),
        scatter="\n".join(scatter),
    )


def compile_kernel(program: Program) -> Kernel:
    """Compile a program; the compiled library is kept on disk and shared by processes.

    Args:
        program: What is to be calculated.

    Returns:
        ``kernel(points (B, n), results [(B, …)], flags (B,))``; a flag is NaN where anything that
        was calculated is not finite, else 0. It tells whether there is such a point.
    """
    from torch._inductor.codecache import CppCodeCache

    library = CppCodeCache.load(source(program), device_type="cpu")

    def kernel(points: Tensor, results: Sequence[Tensor], flags: Tensor) -> bool:
        return call(library.kernel, points, results, flags)

    return kernel


def call(
    function: Any, points: Tensor, results: Sequence[Tensor], flags: Tensor, *more: Any
) -> bool:
    """Call a compiled kernel.

    Args:
        function: Of the library.
        points: (B, n), contiguous.
        results: (B, …) each, contiguous, written.
        flags: (B,), written.
        more: Further arguments of the kernel.

    Returns:
        Whether there is a flag.
    """
    addresses = (ctypes.c_void_p * len(results))(*(result.data_ptr() for result in results))
    flagged: int = function(
        ctypes.c_void_p(points.data_ptr()),
        addresses,
        ctypes.c_void_p(flags.data_ptr()),
        ctypes.c_int64(len(points)),
        ctypes.c_int(torch.get_num_threads()),
        *more,
    )
    return bool(flagged)


def spell_number(value: float | bool) -> str:
    """A constant in C++."""
    if isinstance(value, bool):
        return str(int(value))
    if value != value:
        return "NAN_"
    if value in (float("inf"), float("-inf")):
        return "INF" if value > 0 else "-INF"
    return f"T({value!r})"


def _statement(dag: Dag, node: int) -> str:
    name, args = dag.nodes[node]
    value = dag.value(node)
    if isinstance(value, bool):
        return f"const V v{node} = V(0) {'==' if value else '!='} V(0);"
    if value is not None:
        return f"const V v{node}({spell_number(value)});"
    if name == "input":
        return f"const V v{node} = V::loadu(in[{args[0]}]);"
    spelled = spell(name, [f"v{arg}" for arg in args], [dag.value(arg) for arg in args])
    return f"const V v{node} = {spelled};"


def _layout(program: Program, k: int, rows: dict[int, int]) -> tuple[str, str]:
    flat = program.levels[k].reshape(-1).tolist()
    values = [program.dag.value(node) for node in flat]
    if len(flat) <= FEW:
        entries = (
            f"row[{rows[node]}][lane]" if value is None else spell_number(value)
            for node, value in zip(flat, values, strict=True)
        )
        lines = [f"to{k}[{place}] = {entry};" for place, entry in enumerate(entries)]
        return "", "\n        ".join([POINTER.format(k=k, size=len(flat)), *lines])
    filled = [place for place, value in enumerate(values) if value is None]
    template = ", ".join("0" if value is None else spell_number(value) for value in values)
    places = ", ".join(map(str, filled)) or "0"
    sources = ", ".join(str(rows[flat[place]]) for place in filled) or "0"
    return (
        TABLES.format(k=k, template=template, places=places, sources=sources),
        POINTER.format(k=k, size=len(flat)) + SCATTER.format(k=k, filled=len(filled)),
    )
