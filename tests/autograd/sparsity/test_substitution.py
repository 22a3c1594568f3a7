"""Entries by substitution from sums that are made by their definition, of matrices whose entries are known."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.autograd.pattern import Pattern
from pipeline.autograd.sparsity.substitution import substitute


def of_edges(n, edges):
    matrix = torch.eye(n, dtype=torch.bool)
    for i, j in edges:
        matrix[i, j] = matrix[j, i] = True
    return matrix


def grid(rows, columns, reach):
    i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    i, j = i.flatten(), j.flatten()
    along, across = (i[:, None] - i).abs(), (j[:, None] - j).abs()
    return (torch.maximum(along, across) if reach == "corners" else along + across) <= 1


PETERSEN = [
    *((i, (i + 1) % 5) for i in range(5)),
    *((i, i + 5) for i in range(5)),
    *((5 + i, 5 + (i + 2) % 5) for i in range(5)),
]
# Grötzsch's graph: the smallest without triangles that takes four colours (Mycielski 1955)
GROTZSCH = [
    *((i, (i + 1) % 5) for i in range(5)),
    *((5 + i, (i + s) % 5) for i in range(5) for s in (1, 4)),
    *((10, 5 + i) for i in range(5)),
]
HEAWOOD = [
    *((i, (i + 1) % 14) for i in range(14)),
    *((i, (i + 5) % 14) for i in range(0, 14, 2)),
]
CUBE = [(i, i ^ bit) for i in range(8) for bit in (1, 2, 4) if i < i ^ bit]
GRAPHS = {
    "path": of_edges(40, itertools.pairwise(range(40))),
    "binary tree": of_edges(31, [(i, (i - 1) // 2) for i in range(1, 31)]),
    "arrow": of_edges(12, [(0, i) for i in range(1, 12)]),
    "five points": grid(6, 7, "sides"),
    "nine points": grid(8, 9, "corners"),
    "Petersen": of_edges(10, PETERSEN),
    "Grötzsch": of_edges(11, GROTZSCH),
    "Heawood": of_edges(14, HEAWOOD),
    "cube": of_edges(8, CUBE),
    "complete": torch.ones(6, 6, dtype=torch.bool),
    "diagonal": torch.eye(5, dtype=torch.bool),
    "without diagonal": of_edges(10, PETERSEN) & ~torch.eye(10, dtype=torch.bool),
}


def symmetric_of(mask, count=3, least=1, most=100):
    """Whole numbers: sums and differences of them are exact."""
    entries = torch.randint(
        least, most, (count, *mask.shape), generator=torch.Generator().manual_seed(4)
    )
    upper = entries.to(torch.float64).triu()
    return (upper + upper.mT.tril(-1)) * mask


def sums_of(matrices, colors):
    """By definition: entry (c, v) is the sum of row v over the columns of colour c."""
    count = int(colors.max()) + 1
    seeds = (colors == torch.arange(count)[:, None]).to(matrices)
    return torch.einsum("bvw,cw->bcv", matrices, seeds).flatten(1)


def solved(mask, matrices):
    pattern = Pattern.of_flat(mask.flatten().nonzero()[:, 0], tuple(mask.shape))
    found = substitute(pattern)
    left, is_precise = found.solve(sums_of(matrices, found.compression.columns))
    return left[:, found.compression.index], is_precise


@pytest.mark.parametrize("name", GRAPHS)
def test_every_entry_of_a_known_graph_is_found(name):
    mask = GRAPHS[name]
    matrices = symmetric_of(mask)
    entries, is_precise = solved(mask, matrices)
    assert torch.equal(entries, matrices[:, mask])
    assert is_precise.all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**31), st.floats(0, 1))
def test_every_entry_of_any_symmetric_matrix_is_found(n, seed, density):
    mask = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) < density
    mask |= mask.T.clone()
    matrices = symmetric_of(mask, least=-9)
    assert torch.equal(solved(mask, matrices)[0], matrices[:, mask])


def test_leaves_are_taken_from_both_ends():
    found = substitute(Pattern.of_flat(GRAPHS["path"].flatten().nonzero()[:, 0], (40, 40)))
    assert found.compression.directions == 2
    assert len(found.levels) == 20  # of 39 entries in a row
    assert len(found.inner) == 37


def path_with(*entries):
    n = len(entries) + 1
    mask = of_edges(n, itertools.pairwise(range(n)))
    matrix = torch.eye(n, dtype=torch.float64)
    for i, entry in enumerate(entries):
        matrix[i, i + 1] = matrix[i + 1, i] = entry
    return mask, matrix[None]


@pytest.mark.parametrize(
    ("entries", "is_kept"),
    [
        ((1.0, 2.0, 3.0, 4.0, 5.0), True),
        ((1e10, 1e5, 2e5, 3e5, 1e10), True),  # 1e5 of 1e10 keeps eleven digits
        ((1e10, 1.0, 1e-5, 1.0, 1e10), False),
        ((1e10, 1e-5, 1e-5, 1e-5, 1.0), False),
        ((1.0, 1.0, 0.0, 1.0, 1.0), False),  # nothing tells it from rounding
        ((1e-5, 1.0, 1e10, 1.0, 1e-5), True),  # the large one comes last
        ((1.0, float("inf"), 1.0, 1.0, 1.0), False),
        ((float("nan"), 1.0, 1.0, 1.0, 1.0), False),
    ],
)
def test_digits_that_large_entries_take_from_small_ones_are_seen(entries, is_kept):
    mask, matrices = path_with(*entries)
    found, is_precise = solved(mask, matrices)
    assert bool(is_precise[0]) == is_kept
    if is_kept:
        assert torch.allclose(found, matrices[:, mask], rtol=1e-9, atol=0)


def test_sums_that_are_less_precise_than_their_entries_are_seen():
    """Terms that cancel within the function leave an error that no entry is as large as."""
    mask, matrices = path_with(1.0, 2.0, 3.0, 4.0, 5.0)
    pattern = Pattern.of_flat(mask.flatten().nonzero()[:, 0], (6, 6))
    found = substitute(pattern)
    sums = sums_of(matrices, found.compression.columns)
    ends = found.compression.index[pattern.rows < pattern.columns]
    assert found.solve(sums)[1].all()
    for place in ends.tolist():
        wrong = sums.clone()
        wrong[0, place] += 1e-6
        assert not found.solve(wrong)[1].any()


def test_points_do_not_disturb_one_another():
    mask = GRAPHS["nine points"]
    matrices = symmetric_of(mask).repeat(2, 1, 1)
    matrices[1][mask] *= 1e-12
    matrices[1, 0, 1] = matrices[1, 1, 0] = 1e12
    entries, is_precise = solved(mask, matrices)
    assert is_precise.tolist() == [True, False, True, True, True, True]
    assert torch.equal(entries[[0, 2, 3, 4, 5]], matrices[[0, 2, 3, 4, 5]][:, mask])
