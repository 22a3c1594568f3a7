"""Follows a function, operation by operation, while it is called at one point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.autograd.functions.zero_tensors import WITH_MEMORY
from pipeline.autograd.request import RefusedError
from pipeline.autograd.sparsity.contractions import CONTRACTIONS
from pipeline.autograd.sparsity.pairs import PAIRS
from pipeline.autograd.sparsity.propagation import Propagation, Tracked, nothing
from pipeline.autograd.sparsity.rules import RULES, Call, dense, pointwise, tensors
from pipeline.autograd.sparsity.written import Known, Written

KNOWN = {**RULES, **CONTRACTIONS, **PAIRS}
DEPENDENT = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
SHAPES = "empty_like full_like new_empty new_full new_ones new_zeros ones_like zeros_like"
PRECISE = [
    "addcmul",
    "addcdiv",
    "lerp",
    "mse_loss",
    "huber_loss",
    "smooth_l1_loss",
    "xlogy",
    "hypot",
    "dist",
]


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives the result of every operation that depends on the inputs its sets.

    Args:
        propagation: The sets.

    Attributes:
        notes: Operations without a rule, taken for dense in all of their operands.
    """

    def __init__(self, propagation: Propagation) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sets = propagation
        self._known: Known = {}
        self._written = Written()
        self.notes: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation imports torch._dynamo, which takes seconds

    def of(self, tensor: Any) -> Tracked | None:
        """What a tensor depends on; None where it is a constant."""
        if not isinstance(tensor, Tensor):
            return None
        known = self._known.get(id(tensor))
        return self._written.of(tensor) or (None if known is None else known[1])

    def remember(self, tensor: Tensor, tracked: Tracked) -> None:
        """Say what a tensor depends on; it is kept, so that its id stays its own."""
        self._known[id(tensor)] = (tensor, tracked)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func._overloadpacket.__name__
        operands = tensors((*args, *kwargs.values()))
        depends = any(self.of(value) is not None for value in operands)
        if not depends or name in SHAPES.split():
            return WITH_MEMORY.get(func, func)(*args, **kwargs)
        self._require_static(func, name, args)
        writes = func._schema.is_mutable and torch.Tag.inplace_view not in func.tags
        if not _has_rule(func, name) and not name.endswith("_"):
            with self:
                result = _decomposed(func, args, kwargs)
            if result is not NotImplemented:
                return result
        if writes:
            name = _without_writing(func, name)
        result = func(*args, **kwargs)
        outputs = list(tensors([result]))
        if not any(map(_is_data, outputs)):  # shapes, ranks and truth values have no derivative
            tracked = [nothing(tensor.shape) for tensor in outputs]
        else:
            tracked = self._propagate(Call(func, args, kwargs, outputs, self.of), name)
        for tensor, sets in zip(outputs, tracked, strict=True):
            if writes:
                self._written.write(tensor, sets, self._known)
            self.remember(tensor, sets if _is_data(tensor) else nothing(tensor.shape))
        return result

    def _require_static(self, func: Any, name: str, args: Any) -> None:
        if name in ("index", "_unsafe_index"):
            dynamic = any(
                index.dtype == torch.bool and self.of(index) is not None
                for index in args[1]
                if index is not None
            )
        elif name == "masked_select":
            dynamic = self.of(args[1]) is not None
        else:
            dynamic = any(tag in func.tags for tag in DEPENDENT)
        if dynamic:
            raise RefusedError(f"what it does depends on values: {func}")

    def _propagate(self, call: Call, name: str) -> list[Tracked]:
        rule = KNOWN.get(name)
        if rule is None and torch.Tag.pointwise in call.func.tags:
            rule = pointwise
        if rule is not None:
            found = rule(call, self._sets)
            if [sets.shape for sets in found] == [tensor.shape for tensor in call.outputs]:
                return found
        self.notes.append(name)
        return dense(call, self._sets)


def _is_data(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _without_writing(func: Any, name: str) -> str:
    """The operation of the same result that changes none of its operands."""
    first = func._schema.arguments[0].alias_info
    elsewhere = any(
        each.alias_info and each.alias_info.is_write for each in func._schema.arguments[1:]
    )
    if first is None or not first.is_write or elsewhere or not name.endswith("_"):
        raise RefusedError(f"what it writes into cannot be followed: {func}")
    return name.removesuffix("_")


def _has_rule(func: Any, name: str) -> bool:
    if name in KNOWN:
        return True
    return torch.Tag.pointwise in func.tags and name not in PRECISE


def _decomposed(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """The operation by simpler ones, where PyTorch says which."""
    if func._can_decompose():
        return func.decompose(*args, **kwargs)
    simpler = _decompositions().get(func)
    return NotImplemented if simpler is None else simpler(*args, **kwargs)


@cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """PyTorch's own; imported when an operation without a rule is met."""
    from torch._decomp import core_aten_decompositions, decomposition_table

    return {**decomposition_table, **core_aten_decompositions()}
