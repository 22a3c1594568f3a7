"""What a graph calculates without looking at the points: evaluated once, when it is prepared.

Seeds, and whatever linear operations make of them, are the same at every point. Inductor would
calculate them again in every call, entry by entry behind the comparisons of `torch.cat` and
`slice_backward`, which it does not vectorise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

ATEN = torch.ops.aten
OF_SHAPE = {ATEN.zeros_like.default: 0.0, ATEN.ones_like.default: 1.0}  # no value is looked at


def fold_constants(module: GraphModule) -> GraphModule:
    """Evaluate what does not depend on the inputs, and leave out sums with zeros.

    Args:
        module: A graph without mutations, traced with `make_fx`; changed in place.

    Returns:
        The same module. What is the same along a dimension is kept once and expanded; random
        numbers are left where they are.
    """
    constants = _constants(module)
    for node, constant in constants.items():
        if node.op == "call_function" and any(user not in constants for user in node.users):
            _replace(module, node, constant)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _constants(module: GraphModule) -> dict[Node, Tensor]:
    from torch.fx.node import map_arg

    found: dict[Node, Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            found[node] = getattr(module, node.target)
        elif node.op == "call_function" and node.target in OF_SHAPE:
            like = node.meta["val"]
            full = torch.full((), OF_SHAPE[node.target], dtype=like.dtype, device=like.device)
            found[node] = full.expand(like.shape)
        elif _is_constant(node, found):
            arguments, options = map_arg((node.args, node.kwargs), lambda each: found[each])
            found[node] = node.target(*arguments, **options)
    return found


def _is_constant(node: Node, constants: dict[Node, Tensor]) -> bool:
    return (
        node.op == "call_function"
        and torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ())
        and isinstance(node.meta.get("val"), Tensor)
        and all(each in constants for each in node.all_input_nodes)
    )


def _replace(module: GraphModule, node: Node, constant: Tensor) -> None:
    """Put a constant where it was calculated."""
    kept = _kept_once(constant)
    name = f"_folded_{node.name}"
    module.register_buffer(name, kept)
    with module.graph.inserting_before(node):
        stored = module.graph.get_attr(name)
        stored.meta["val"] = kept
        whole = module.graph.call_function(ATEN.expand.default, (stored, list(constant.shape)))
        whole.meta["val"] = constant
    # a result is not a view of what is kept: its owner may write into it
    node.replace_all_uses_with(whole, delete_user_cb=lambda user: user.op != "output")
    if not bool(kept.any()):
        for user in list(whole.users):
            _leave_out(user, whole)


def _kept_once(constant: Tensor) -> Tensor:
    """Without the repetitions along dimensions."""
    for dimension, size in enumerate(constant.shape):
        if size > 1 and bool((constant == constant.narrow(dimension, 0, 1)).all()):
            constant = constant.narrow(dimension, 0, 1)
    return constant.clone(memory_format=torch.contiguous_format)


def _leave_out(node: Node, zero: Node) -> None:
    """Replace ``other + zero`` and ``other - zero`` by what is left of them."""
    if node.target not in (ATEN.add.Tensor, ATEN.sub.Tensor):
        return
    first, second = node.args[:2]
    other: Any = first if second is zero else second if node.target is ATEN.add.Tensor else None
    val = getattr(other, "meta", {}).get("val")
    if not isinstance(val, Tensor) or "alpha" in node.kwargs or other is zero:
        return
    if val.shape == node.meta["val"].shape and val.dtype == node.meta["val"].dtype:
        node.replace_all_uses_with(other)
