"""What operations of ATen on entries and along dimensions do to sets, by name.

Where an operation has several branches (a maximum, `where`, indices that depend on the inputs),
the result depends on all of them: a pattern holds for every input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter

from pipeline.autograd.sparsity.propagation import Propagation, Tracked, nothing


@dataclass(frozen=True)
class Call:
    """An operation that is being carried out.

    Attributes:
        func: The overload.
        args: Its arguments.
        kwargs: Its options.
        outputs: The tensors that it gave.
        of: Sets of a tensor; None for a constant.
    """

    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Sequence[Tensor]
    of: Callable[[Any], Tracked | None]

    @property
    def out(self) -> Tensor:
        """The first result."""
        return self.outputs[0]

    def operands(self) -> list[Tracked]:
        """All arguments that depend on the inputs."""
        found = (self.of(value) for value in tensors((*self.args, *self.kwargs.values())))
        return [tracked for tracked in found if tracked is not None]

    def sets(self, value: Any) -> Tracked:
        """Sets of any value: empty ones of a constant."""
        tracked = self.of(value)
        return tracked or nothing(torch.as_tensor(value).shape)

    def option(self, position: int, name: str, default: Any = None) -> Any:
        """An argument that may be given by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


Rule = Callable[[Call, Propagation], list[Tracked]]


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors among arguments or results of an operation, which nest no deeper than lists.

    Args:
        values: The arguments or results.

    Yields:
        The tensors, in order.
    """
    for value in values:  # torch's own walk through nested values takes longer than most rules
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


def dense(call: Call, sets: Propagation) -> list[Tracked]:
    """Everything depends on everything: of an operation that is not known.

    Args:
        call: The operation.
        sets: The sets.

    Returns:
        Sets of each result.
    """
    whole = [_total(sets, tracked) for tracked in call.operands()]
    everything = sets.bend(*whole)
    return [everything.expand(out.shape) for out in call.outputs]


def pointwise(call: Call, sets: Propagation) -> list[Tracked]:
    """Entry by entry, not linear.

    Args:
        call: The operation.
        sets: The sets.

    Returns:
        Sets of the result.
    """
    return [_expanded(sets.bend(*call.operands()), call.out.shape)]


def linear(call: Call, sets: Propagation) -> list[Tracked]:
    """Entry by entry, linear in each operand, or in pieces.

    Args:
        call: The operation.
        sets: The sets.

    Returns:
        Sets of the result.
    """
    return [_expanded(sets.join(*call.operands()), call.out.shape)]


def _expanded(tracked: Tracked, shape: torch.Size) -> Tracked:
    return tracked.expand(shape)


def _total(sets: Propagation, tracked: Tracked) -> Tracked:
    return sets.unite(tracked, torch.zeros_like(tracked.inputs), ())


def _where(call: Call, sets: Propagation) -> list[Tracked]:
    branches = [call.sets(branch) for branch in call.args[1:3]]
    return [_expanded(sets.join(*branches), call.out.shape)]


def _masked_fill(call: Call, sets: Propagation) -> list[Tracked]:
    filled = sets.join(call.sets(call.args[0]), call.sets(call.args[2]))
    mask = call.args[1]
    if call.of(mask) is None and call.of(call.args[2]) is None:
        filled = filled.map(lambda one: torch.where(mask.cpu(), 0, one))
    return [_expanded(filled, call.out.shape)]


def _mul(call: Call, sets: Propagation) -> list[Tracked]:
    a, b = call.args[:2]
    left, right = call.of(a), call.of(b)
    if left is not None and right is not None:
        return [sets.multiply(left, right)]
    tracked, factor = (left, b) if left is not None else (right, a)
    assert tracked is not None, "one of them depends on the inputs"
    kept = torch.as_tensor(factor).cpu() != 0
    return [tracked.map(lambda one: torch.where(kept, one, 0))]


def _div(call: Call, sets: Propagation) -> list[Tracked]:
    if call.kwargs.get("rounding_mode") is not None:
        return [nothing(call.out.shape)]
    above, below = call.sets(call.args[0]), call.sets(call.args[1])
    return [sets.multiply(above, sets.bend(below))]


def _pow(call: Call, sets: Propagation) -> list[Tracked]:
    exponent = call.args[1]
    if isinstance(exponent, int | float) and exponent in (0, 1):
        return [call.sets(call.args[0])] if exponent == 1 else [nothing(call.out.shape)]
    return pointwise(call, sets)


def _move(call: Call, sets: Propagation) -> list[Tracked]:
    """Let torch move the numbers of sets as it moves the entries; what it fills in is constant."""
    inputs = _moved_numbers(call, lambda tracked: tracked.inputs)
    events = _moved_numbers(call, lambda tracked: tracked.events)
    return [Tracked(*pair) for pair in zip(inputs, events, strict=True)]


def _moved_numbers(call: Call, part: Callable[[Tracked], Tensor]) -> list[Tensor]:
    places = call.func._overloadpacket.__name__ in PLACED

    def numbers(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [numbers(each) for each in value]
        if not isinstance(value, Tensor):
            return value
        tracked = call.of(value)
        if tracked is not None:
            return part(tracked)
        is_data = not places or value.is_floating_point() or value.is_complex()
        return torch.zeros(value.shape, dtype=torch.int64) if is_data else value.cpu()

    options = {name: value for name, value in call.kwargs.items() if name != "memory_format"}
    result = call.func(*map(numbers, call.args), **options)
    return list(tensors([result]))


def _reshape(call: Call, sets: Propagation) -> list[Tracked]:
    return [call.sets(call.args[0]).reshape(call.out.shape)]


def _transposed_in_place(call: Call, sets: Propagation) -> list[Tracked]:
    axes = call.args[1:3] or (0, -1)
    before = call.of(call.args[0])
    assert before is not None, "it is the only operand"
    return [before.map(lambda one: one.transpose(*axes) if one.ndim > 1 else one)]


def _pad(call: Call, sets: Propagation) -> list[Tracked]:
    pad = list(call.args[1])
    return [call.sets(call.args[0]).map(lambda one: torch.constant_pad_nd(one, pad, 0))]


def _index(call: Call, sets: Propagation) -> list[Tracked]:
    """Entries at positions; where these depend on the inputs, any of the entries."""
    positions = list(tree_iter((call.args[1:], call.kwargs)))
    if not any(call.of(value) is not None for value in positions):
        return _move(call, sets)
    name = call.func._overloadpacket.__name__
    source = call.sets(call.args[0])
    if name in ("index", "_unsafe_index", "take"):
        return [_expanded(_total(sets, source), call.out.shape)]
    dim = call.args[1] % max(len(source.shape), 1)
    return [_along(sets, source, [dim], call.out.shape)]


def _second(call: Call, sets: Propagation) -> list[Tracked]:
    return [_expanded(call.sets(call.args[1]), call.out.shape)]


def _along(sets: Propagation, tracked: Tracked, dims: Sequence[int], shape: torch.Size) -> Tracked:
    """Unions along dimensions, repeated to a shape that may have another length there."""
    return _expanded(_reduced(sets, tracked, dims, keepdim=True), shape)


def _reduced(
    sets: Propagation, tracked: Tracked, dims: Sequence[int] | None, keepdim: bool
) -> Tracked:
    shape = tracked.shape
    axes = {dim % len(shape) for dim in dims} if dims and shape else set(range(len(shape)))
    kept = torch.Size(1 if axis in axes else size for axis, size in enumerate(shape))
    owners = torch.arange(kept.numel()).reshape(kept).expand(shape)
    result = sets.unite(tracked, owners, tuple(kept))
    if keepdim:
        return result
    final = [size for axis, size in enumerate(shape) if axis not in axes]
    return result.reshape(final)


def _dims(call: Call, position: int) -> list[int] | None:
    dim = call.option(position, "dim")
    return [dim] if isinstance(dim, int) else list(dim) if dim is not None else None


def _reduction(bends: bool, position: int = 1) -> Rule:
    """Sums, extremes, norms: along dimensions, or over everything."""

    def rule(call: Call, sets: Propagation) -> list[Tracked]:
        source = call.sets(call.args[0])
        result = _reduced(sets, source, _dims(call, position), keepdim=False)
        result = sets.bend(result) if bends else result
        return [result.reshape(out.shape) for out in call.outputs]

    return rule


def _mixing(bends: bool, position: int = 1) -> Rule:
    """Every entry of the result depends on all entries along dimensions."""

    def rule(call: Call, sets: Propagation) -> list[Tracked]:
        source = call.sets(call.args[0])
        dims = _dims(call, position)
        dims = [-1] if dims is None else dims
        result = _reduced(sets, source, dims, keepdim=True)
        result = sets.bend(result) if bends else result
        return [_fitted(result, out.shape) for out in call.outputs]

    return rule


def _fitted(tracked: Tracked, shape: torch.Size) -> Tracked:
    """Repeat along dimensions of length 1, or drop these."""
    if len(tracked.shape) != len(shape):
        return tracked.reshape(shape)
    return _expanded(tracked, shape)


def _cumulative(bends: bool) -> Rule:
    """Every entry depends on those before it: unions over 1, 2, 4, … entries."""

    def rule(call: Call, sets: Propagation) -> list[Tracked]:
        source = call.sets(call.args[0])
        if not source.shape:
            return [source for _ in call.outputs]
        dim, step = call.args[1], 1
        source = source.map(lambda one: one.movedim(dim, 0))
        while step < source.shape[0]:
            later = sets.join(source[step:], source[:-step])
            source = Tracked(
                torch.cat([source.inputs[:step], later.inputs]),
                torch.cat([source.events[:step], later.events]),
            )
            step *= 2
        result = source.map(lambda one: one.movedim(0, dim))
        result = sets.bend(result) if bends else result
        return [result for _ in call.outputs]

    return rule


def _scatter(call: Call, sets: Propagation) -> list[Tracked]:
    """Entries added, or otherwise folded, into places of a tensor."""
    name = call.func._overloadpacket.__name__
    target = call.sets(call.args[0])
    places = torch.arange(target.inputs.numel()).reshape(target.shape)
    if name in ("index_put", "_unsafe_index_put"):
        positions, values = call.args[1], call.args[2]
        chosen = None if _moved(call, positions) else places[tuple(_slices(positions))]
    else:
        dim, positions, values = call.args[1:4]
        select = torch.index_select if name.startswith("index") else torch.gather
        chosen = None if _moved(call, positions) else select(places, dim, positions.cpu())
    folded = call.sets(values)
    if chosen is None:  # places that depend on the inputs: any of them
        return [sets.join(target, _expanded(_total(sets, folded), target.shape))]
    if name in ("index_put", "_unsafe_index_put") or not folded.shape:
        folded = _expanded(folded, chosen.shape)
    elif folded.shape != chosen.shape:
        folded = folded[tuple(slice(size) for size in chosen.shape)]
    added = sets.unite(folded, chosen, tuple(target.shape))
    return [_folded(call, sets, target, added, chosen)]


def _folded(
    call: Call, sets: Propagation, target: Tracked, added: Tracked, chosen: Tensor
) -> Tracked:
    """Sum, product or replacement of what was there."""
    name = call.func._overloadpacket.__name__
    if name in ("index_copy", "scatter") or (
        name in ("index_put", "_unsafe_index_put") and not call.option(3, "accumulate", False)
    ):
        replaced = torch.zeros(target.shape, dtype=torch.bool)
        replaced.view(-1)[chosen.reshape(-1)] = True
        target = target.map(lambda one: torch.where(replaced, 0, one))
    result = sets.join(target, added)
    how = call.option(4, "reduce", "sum") if "reduce" in name else "sum"
    return sets.bend(result) if how == "prod" else result


def _moved(call: Call, positions: Any) -> bool:
    return any(call.of(value) is not None for value in tree_iter(positions))


def _slices(positions: Sequence[Tensor | None]) -> list[Any]:
    return [slice(None) if index is None else index.cpu() for index in positions]


PLACED = ("index", "_unsafe_index", "index_select", "gather", "take", "masked_select")
LINEAR = """
    add clamp clamp_max clamp_min clone contiguous detach _conj _conj_physical conj_physical
    fmax fmin fmod hardshrink hardtanh leaky_relu lift_fresh lift_fresh_copy maximum minimum nan_to_num
    neg _neg_view positive real relu relu6 remainder rsub softshrink sub threshold _to_copy alias
    rrelu deg2rad rad2deg hardsigmoid prims_convert_element_type
"""
CONSTANT = "zero ceil floor round sign trunc fix heaviside nextafter"
MOVES = """
    cat diag_embed diagonal diagonal_copy diagonal_scatter expand flip movedim narrow permute repeat
    roll rot90 select select_scatter slice slice_scatter split split_with_sizes squeeze stack t
    transpose tril triu unbind unfold unsqueeze
"""
RESHAPES = "view reshape _unsafe_view _reshape_alias squeeze_ unsqueeze_"
RULES: dict[str, Rule] = {
    **dict.fromkeys(LINEAR.split(), linear),
    **dict.fromkeys(CONSTANT.split(), lambda call, sets: [nothing(call.out.shape)]),
    **dict.fromkeys(MOVES.split(), _move),
    **dict.fromkeys(RESHAPES.split(), _reshape),
    **dict.fromkeys(PLACED[:-1], _index),
    "masked_select": _move,
    **dict.fromkeys(("copy", "fill"), _second),
    **dict.fromkeys(("sum", "mean", "amax", "amin", "nansum", "max", "min"), _reduction(False)),
    **dict.fromkeys(("prod", "logsumexp", "std", "var", "std_mean", "var_mean"), _reduction(True)),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _reduction(True, position=2)),
    **dict.fromkeys(("_softmax", "_log_softmax"), _mixing(True)),
    **dict.fromkeys(("sort", "_fft_r2c", "_fft_c2c", "_fft_c2r"), _mixing(False)),
    **dict.fromkeys(("median", "nanmedian"), _reduction(False)),
    **dict.fromkeys(("kthvalue", "topk"), _mixing(False, position=2)),
    "mode": _mixing(False),
    **dict.fromkeys(("cumsum", "cummax", "cummin"), _cumulative(False)),
    **dict.fromkeys(("cumprod", "logcumsumexp"), _cumulative(True)),
    **dict.fromkeys(("index_put", "_unsafe_index_put", "index_add", "index_copy"), _scatter),
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce", "index_reduce"), _scatter),
    **dict.fromkeys(("t_", "transpose_"), _transposed_in_place),
    "where": _where,
    "masked_fill": _masked_fill,
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "constant_pad_nd": _pad,
}
