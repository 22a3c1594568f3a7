"""How much memory there is, and how much an evaluation holds: measured, not guessed."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pipeline.autograd.functions.following import tensors_in
from pipeline.autograd.functions.zero_tensors import WITH_MEMORY

# Least and most that one batch works on: it should pay its overhead and stay in the caches.
WORKING_SET = {"cpu": (2 << 20, 32 << 20), "cuda": (2 << 30, 2 << 30)}
# Products -> which argument is the left factor. Torch's own registry leaves out those with a vector, and
# takes longer to count a small one than to calculate it.
_ATEN = torch.ops.aten
LEFT_OF = {
    **dict.fromkeys((_ATEN.mv, _ATEN.mm, _ATEN.bmm), 0),
    **dict.fromkeys((_ATEN.addmv, _ATEN.addmm, _ATEN.baddbmm), 1),
}
UNLIMITED = 1 << 62
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), "/proc/self/cgroup"
# Controllers, nothing for version 2 -> where they are mounted, and files with the limit, what is used,
# and the name of what of it are copies of files, which the kernel takes back when it needs them.
USAGE = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


class OverBudgetError(Exception):
    """An evaluation held more than it may; its directions have to be chunked further."""


class _Storage(weakref.ref[torch.UntypedStorage]):
    """A storage that is alive. Calls by the thousand are counted: `weakref.finalize` takes longer than they do."""

    __slots__ = ("key", "size")
    key: int
    size: int


@cache
def _flops_of(func: Any) -> Callable[..., int] | None:
    """What counts the operations of a call; nothing for calls that are no products."""
    packet = func._overloadpacket
    if packet in LEFT_OF:
        place = LEFT_OF[packet]
        return lambda *args, out_val, **options: 2 * out_val.numel() * args[place].shape[-1]
    counted: Callable[..., int] | None = flop_registry.get(packet)
    return counted


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, and the bytes of live tensors, while it is active, on any device.

    Args:
        limit: Raise `OverBudgetError` as soon as more bytes than this are live.
    """

    def __init__(self, limit: int = UNLIMITED) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit, self.live, self.peak = limit, 0, 0
        self.operations, self.traffic, self.flops = 0, 0, 0
        self._alive: dict[int, _Storage] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation imports torch._dynamo, which takes longer than a short job

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = WITH_MEMORY.get(func, func)(*args, **(kwargs or {}))
        self.operations += 1
        formula = _flops_of(func)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        for tensor in (result,) if isinstance(result, Tensor) else tensors_in(result):
            if tensor.layout == torch.strided:
                self._count(tensor.untyped_storage())
        if self.live > self.limit:
            raise OverBudgetError
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            kept = self._alive[key] = _Storage(storage, self._release)
            kept.key, kept.size = key, storage.nbytes()
            self.live += kept.size
            self.traffic += kept.size
            self.peak = max(self.peak, self.live)

    def _release(self, gone: _Storage) -> None:
        if self._alive.get(gone.key) is gone:
            del self._alive[gone.key]
        self.live -= gone.size


def available_bytes(device: torch.device) -> int:
    """Memory that this process may still take on a device.

    Args:
        device: cpu or a CUDA device.

    Returns:
        Bytes: for the CPU the least of the machine's free memory, the control group's limit and
        Slurm's; for CUDA what `torch.cuda.mem_get_info` reports as free, and what torch keeps free.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    limits = _cgroup_bytes(CGROUPS, _read(OWN_CGROUPS))
    return min([_machine_bytes(), *_slurm_bytes(), *limits])


def _machine_bytes() -> int:
    text = _read("/proc/meminfo")
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _slurm_bytes() -> list[int]:
    """What Slurm has given this job on this node, where it says so."""
    node, cpu, cpus = (
        int(os.environ.get(f"SLURM_{name}", 0))
        for name in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE")
    )
    return [size << 20 for size in (node, cpu * cpus) if size]


def _cgroup_bytes(root: Path, own: str) -> Iterator[int]:
    """What is left below each limit of the control groups that this process is in, one within the other."""
    for line in own.splitlines():
        _, kinds, place = line.split(":", 2)
        if kinds not in USAGE:
            continue
        mount, limit, used, idle = USAGE[kinds]
        folder = root / mount / place.lstrip("/")
        for group in (folder, *folder.parents[: len(folder.relative_to(root / mount).parts)]):
            most, now = _read(group / limit).strip(), _read(group / used).strip()
            if most.isdigit() and now.isdigit():
                kept = re.search(rf"^{idle} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
                yield max(int(most) - int(now) + (int(kept[1]) if kept else 0), 0)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def power_of_two(limit: int) -> int:
    """Largest power of two that is at most `limit`, at least 1.

    Args:
        limit: Any number.

    Returns:
        The power of two.

    Examples:
        >>> power_of_two(100), power_of_two(0)
        (64, 1)
    """
    return 1 << max(limit.bit_length() - 1, 0)
