"""Buffers that a caller gives to read into: NumPy arrays, torch tensors."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError


def as_numpy(buffer: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """See a buffer as a NumPy array that shares its memory.

    Args:
        buffer: NumPy array, or torch tensor in CPU memory.
        name: Dataset that will be read into it.
        shape: What it has to be.
        dtype: What it has to be.

    Returns:
        C-contiguous, writable, of this shape and dtype.

    Raises:
        StoreError: The buffer does not fit.
    """
    wanted = f"{name}: the buffer has to be {dtype} {shape}"
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is not None and isinstance(buffer, torch.Tensor):
        buffer = _shared(buffer, wanted)
    elif not isinstance(buffer, np.ndarray):
        raise StoreError(f"{wanted}, a NumPy array or a torch tensor, got {type(buffer).__name__}")
    if buffer.shape != shape or buffer.dtype != dtype:
        raise StoreError(f"{wanted}, got {buffer.dtype} {buffer.shape}")
    if not (buffer.flags.c_contiguous and buffer.flags.writeable):
        raise StoreError(
            f"{wanted} that is C-contiguous and writable, got strides {buffer.strides} and "
            f"writable={buffer.flags.writeable}; read into another one and copy"
        )
    return np.asarray(buffer)


def _shared(tensor: Any, wanted: str) -> Any:
    if tensor.device.type != "cpu":
        raise StoreError(
            f"{wanted} in CPU memory, got one on {tensor.device}; read into a pinned tensor and copy it "
            "with .to(device, non_blocking=True)"
        )
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise StoreError(f"{wanted}, got {tensor.dtype} {tuple(tensor.shape)}: {error}") from error
