"""What a program has set around a call, kept from reaching into derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial, update_wrapper
from typing import Any

import torch

from pipeline.errors import PipelineError

CPU = torch.device("cpu")
OUTSIDE = ContextVar("OUTSIDE", default=CPU)  # the default device of whoever called


@contextmanager
def own_surroundings() -> Iterator[None]:
    """Work as in a program that has set nothing: no inference mode, and tensors on the CPU unless said.

    Raises:
        PipelineError: The block is called inside of a function that torch.func transforms.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise PipelineError(
            "derivatives are asked for inside of a function that torch.func transforms (vmap, grad, jvp, …), "
            "which cannot see into them; call it outside, or use torch.func for both"
        )
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        outside = OUTSIDE.set(torch.get_default_device())
        stack.callback(OUTSIDE.reset, outside)
        if torch.get_default_device() != CPU:
            stack.enter_context(CPU)
        yield


def as_outside(f: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function make its constants where the program that called us makes them.

    Args:
        f: Any callable.

    Returns:
        It, under the default device outside of `own_surroundings`; f itself where that is the CPU, or
        where f is a module.
    """
    device = OUTSIDE.get()
    if device == CPU or isinstance(f, torch.nn.Module):
        return f
    return update_wrapper(partial(_under, device, f), f)


def _under(device: torch.device, f: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    with device:
        return f(*inputs, **named)
