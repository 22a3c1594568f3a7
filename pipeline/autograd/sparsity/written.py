"""Sets of memory that operations write into, which any number of views share."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.autograd.request import RefusedError
from pipeline.autograd.sparsity.propagation import Tracked, nothing

Known = dict[int, tuple[Tensor, Tracked]]  # id of a tensor -> the tensor and what it depends on


class Written:
    """What every place of memory depends on, once something has been written into it.

    Where `torch.func.functionalize` does not look, as within the padding of a ring, operations fill
    a tensor by its views. A place of memory then has one set, whatever tensor it is read by.
    """

    def __init__(self) -> None:
        self._by_storage: dict[int, tuple[Tensor, Tracked]] = {}

    def of(self, tensor: Tensor) -> Tracked | None:
        """What a tensor depends on whose memory has been written into; None for any other.

        Args:
            tensor: Any.

        Returns:
            Its sets.

        Raises:
            RefusedError: It is read as numbers of another type than was written.
        """
        if not self._by_storage:
            return None
        found = self._by_storage.get(_storage(tensor))
        if found is None:
            return None
        if found[0].dtype != tensor.dtype:
            raise RefusedError(f"it reads as {tensor.dtype} what it wrote as {found[0].dtype}")
        return _seen(tensor, found[1])

    def write(self, tensor: Tensor, sets: Tracked, known: Known) -> None:
        """Say what a tensor depends on that has been written into.

        Args:
            tensor: The tensor; its memory is kept, so that it stays its own.
            sets: What it depends on now.
            known: What other tensors depend on, some of which may share its memory.

        Raises:
            RefusedError: Its memory is read as numbers of another type.
        """
        storage = _storage(tensor)
        if storage not in self._by_storage:
            alike = [pair for pair in known.values() if _storage(pair[0]) == storage]
            size = tensor.untyped_storage().nbytes() // tensor.element_size()
            places = nothing((size,)).map(torch.clone)
            self._by_storage[storage] = tensor, places
            for each, before in alike:
                _fill(self.of(each), before)
        _fill(self.of(tensor), sets)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else -1


def _seen(tensor: Tensor, places: Tracked) -> Tracked:
    shape, steps, start = tensor.shape, tensor.stride(), tensor.storage_offset()
    return places.map(lambda one: one.as_strided(shape, steps, start))


def _fill(places: Tracked | None, sets: Tracked) -> None:
    assert places is not None, "its memory has been written into"
    places.inputs.copy_(sets.inputs)
    places.events.copy_(sets.events)
