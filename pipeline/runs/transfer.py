"""Points to a device and results from it, while the next batch is computed.

On a CUDA device nothing here waits for it but the thread that writes: points and results go through
pinned memory on streams of their own, and the writer waits for the event of the batch it writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor

Rows: TypeAlias = Mapping[str, NDArray[Any]]


class Transfer(ABC):
    """Moves batches between this process and the device on which it computes.

    Laws that both kinds keep:
        - values are not changed, whatever else the device does meanwhile;
        - what `take` was given may be let go of at once.
    """

    @abstractmethod
    def put(self, points: Tensor) -> Tensor:
        """Give points (B, n) of the host to the device, in the job's dtype."""

    @abstractmethod
    def take(self, tensors: Mapping[str, Tensor]) -> Callable[[], Rows]:
        """Begin to fetch a batch.

        Args:
            tensors: Dataset -> (B, …) on the device.

        Returns:
            A function that waits until it is here and gives it, C-contiguous; from any thread.
        """


class Direct(Transfer):
    """The device is this process' own memory: nothing moves.

    Args:
        dtype: Of the job.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def put(self, points: Tensor) -> Tensor:
        """Give them in the job's dtype."""
        return points.to(dtype=self._dtype)

    def take(self, tensors: Mapping[str, Tensor]) -> Callable[[], Rows]:
        """Give views."""
        rows = {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}
        return lambda: rows


class Staged(Transfer):
    """Through pinned memory, on one stream for each direction.

    Args:
        device: A CUDA device.
        dtype: Of the job.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._up, self._down = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]

    def put(self, points: Tensor) -> Tensor:
        """Copy while the batch before is computed; the computing stream waits, this thread does not."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._up):
            # torch keeps pinned blocks for the next batch until the copy has been done
            pinned = points.to(dtype=self._dtype).pin_memory()
            sent = pinned.to(self._device, non_blocking=True)
        computing.wait_stream(self._up)
        sent.record_stream(computing)
        return sent

    def take(self, tensors: Mapping[str, Tensor]) -> Callable[[], Rows]:
        """Copy once they are computed, beside the next batch."""
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            fetched = {name: self._fetch(tensor.detach()) for name, tensor in tensors.items()}
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._down)

        def rows() -> Rows:
            done.synchronize()
            return {name: tensor.numpy() for name, tensor in fetched.items()}

        return rows

    def _fetch(self, tensor: Tensor) -> Tensor:
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        pinned.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._down)  # its memory is not given away before it is copied
        return pinned


def build_transfer(device: torch.device, dtype: torch.dtype) -> Transfer:
    """Choose by the device.

    Args:
        device: Where a job is computed.
        dtype: Of the job.

    Returns:
        The transfer.
    """
    return Staged(device, dtype) if device.type == "cuda" else Direct(dtype)
