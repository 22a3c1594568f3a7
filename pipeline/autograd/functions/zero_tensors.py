"""Torch's zeros without memory: forward mode makes them, and a dispatch mode must not pass them on."""

from collections.abc import Callable
from typing import Any

import torch

# They are given memory above a dispatch mode. Those that are made below one reach kernels that read
# them, and the process ends by a segmentation fault: seen in torch 2.13, where a function that takes
# `torch.func.jvp` or `jacfwd` of its own is differentiated twice. So a mode makes plain zeros.
WITH_MEMORY: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten._efficientzerotensor.default: torch.ops.aten.zeros.default
}
