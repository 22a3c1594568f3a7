"""Follows what depends on an input through a function, call by call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Notice = Callable[[str, Any, Any], None]

TEXT = ["repr", "str", "format"]
READ = [
    *TEXT,
    *["numpy", "array", "tolist", "dlpack", "data_ptr", "untyped_storage", "storage", "reduce_ex"],
]


class Follow(TorchFunctionMode):
    """Tells of every call that takes something which depends on an input.

    Args:
        inputs: The inputs.
        notice: Called before the call with its name, without underscores around it and `linalg_`
            before it, its arguments and its options.

    Attributes:
        call: The function that is being called, for those who are told.
    """

    def __init__(self, inputs: tuple[Tensor, ...], notice: Notice) -> None:
        super().__init__()
        # kept alive, so that no id is used again
        self._dependent: dict[int, Any] = {id(each): each for each in inputs}
        self._notice = notice
        self.call: Any = None

    def is_held(self, value: Any) -> bool:
        """Whether a value is a tensor that does not depend on an input."""
        return isinstance(value, Tensor) and id(value) not in self._dependent

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._depends(args, kwargs):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "").strip("_").removeprefix("linalg_")
        self.call = func
        self._notice(name, args, kwargs)
        result = func(*args, **kwargs)
        changed = (args[0],) if name == "setitem" else ()
        for tensor in tensors_in(result, *changed):
            self._dependent[id(tensor)] = tensor
        return result

    def _depends(self, args: Any, options: Any) -> bool:
        known = self._dependent
        for value in args:  # as nearly always: an argument itself
            if id(value) in known:
                return True
        return any(id(value) in known for value in tensors_in(args, options))


class _FollowGraph(Follow):
    """Finds what depends on an input by its gradient, though no call that was seen made it."""

    def __init__(self, x: Tensor) -> None:
        super().__init__((x,), lambda *call: None)
        self._x = x
        self.unseen: list[str] = []

    def look_at(self, value: Any) -> None:
        """Keep the names of what made the tensors in a value, where no call did."""
        for tensor in tensors_in(value):
            node = tensor.grad_fn
            if node is not None and self.is_held(tensor) and _reaches(node, self._x):
                self.unseen.append(node.name())
                self._dependent[id(tensor)] = tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.look_at((args, kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


def _reaches(node: Any, x: Tensor) -> bool:
    """Whether a backward pass from a node comes to a tensor."""
    seen, waiting = {node}, [node]
    while waiting:
        node = waiting.pop()
        if getattr(node, "variable", None) is x:
            return True
        following = {each for each, _ in node.next_functions if each is not None} - seen
        seen |= following
        waiting += following
    return False


def unseen(f: Callable[[Tensor], Any], x: Tensor) -> tuple[str, ...]:
    """Find what a function does inside of which calls of torch are not seen.

    Compiled code, operations of a library, a custom `autograd.Function` that computes in NumPy.

    Args:
        f: Maps one point (n,) to a tensor.
        x: An example, (n,).

    Returns:
        Names of their backward passes, in the order of the calls; nothing where all is seen.
    """
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad(), _FollowGraph(x) as follow:
        follow.look_at(f(x))
    return tuple(dict.fromkeys(follow.unseen))


def reads(f: Callable[[Tensor], Any], x: Tensor, *held: Tensor) -> str:
    """Find out by which call, if any, a function hands values to Python as numbers or text.

    What Python makes of them is not seen by whoever follows or batches operations of torch: it is
    a constant for them.

    Args:
        f: Maps one point (n,) to a tensor.
        x: An example, (n,).
        held: What else changes from point to point.

    Returns:
        The name of the call; nothing where there is none.
    """
    found: list[str] = []

    def notice(name: str, args: Any, options: Any) -> None:
        if name in READ:
            found.append(name)

    with torch.enable_grad(), Follow((x, *held), notice):
        f(x)
    return next(iter(sorted(found, key=lambda name: name not in TEXT)), "")


def tensors_in(*values: Any) -> Iterator[Tensor]:
    """Find the tensors among the arguments of a call, or in what it returns.

    Args:
        *values: Tensors, or anything else, in sequences and dictionaries to any depth.

    Yields:
        The tensors. Calls by the thousand are followed, for which torch's own walk is slow.
    """
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_in(*value)
        elif isinstance(value, dict):
            yield from tensors_in(*value.values())
