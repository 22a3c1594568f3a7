"""The C++ of loops over formulas: each formula is a function, and tables say what it runs over.

A tile of points fills the lanes of vector registers; results are calculated piece by piece and
turned, in the cache, into rows of points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from pipeline.autograd.scalar.emit import CTYPES, spell_number
from pipeline.autograd.scalar.formulas import Formula, Place
from pipeline.autograd.scalar.operations import POWER, spell

Constants = Sequence[float | None]

PIECE = 256  # results that are turned together: 8 KB of registers' contents
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


def source(dtype: torch.dtype, formulas: Mapping[Formula, Constants]) -> str:
    """Write formulas in C++, with what runs them.

    Args:
        dtype: In which precision.
        formulas: Formula -> its constants that are the same wherever it runs; None for the others.

    Returns:
        The source of one function ``kernel``.
    """
    return TEMPLATE.format(
        ctype=CTYPES[dtype],
        piece=PIECE,
        power=POWER,
        count=len(formulas),
        KEEP=KEEP,
        ADD=ADD,
        WATCH=WATCH,
        formulas="".join(
            FORMULA.format(number=number, body="\n".join(_lines(formula, fixed)))
            for number, (formula, fixed) in enumerate(formulas.items())
        ),
        cases="\n".join(
            CASE.format(number=number, slots=formula.slots, constants=formula.constants)
            for number, formula in enumerate(formulas)
        ),
    )


def _lines(formula: Formula, fixed: Constants) -> Iterator[str]:
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
