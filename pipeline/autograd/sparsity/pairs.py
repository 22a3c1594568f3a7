"""What operations on complex numbers, which are pairs of real ones, do to sets, by name."""

from __future__ import annotations

import torch

from pipeline.autograd.sparsity.propagation import Propagation, Tracked
from pipeline.autograd.sparsity.rules import Call, Rule, linear, pointwise


def _apart(call: Call, sets: Propagation) -> list[Tracked]:
    """Both of a pair depend on what the number depends on."""
    return [call.sets(call.args[0])[..., None].expand(call.out.shape)]


def _together(call: Call, sets: Propagation) -> list[Tracked]:
    pairs = call.sets(call.args[0])
    owners = torch.arange(call.out.numel()).reshape(call.out.shape)[..., None]
    return [sets.unite(pairs, owners.expand(pairs.shape), tuple(call.out.shape))]


def _unless_complex(call: Call, sets: Propagation) -> list[Tracked]:
    """The size and the sign of a real number are linear in pieces, those of a complex one are not."""
    return (pointwise if call.args[0].is_complex() else linear)(call, sets)


PAIRS: dict[str, Rule] = {
    "complex": linear,
    "view_as_real": _apart,
    "view_as_complex": _together,
    **dict.fromkeys(("abs", "sgn"), _unless_complex),
}
