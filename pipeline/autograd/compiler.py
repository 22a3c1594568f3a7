"""The C++ compiler behind the compiled routes, and where its results are kept."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import sys
from functools import cache
from pathlib import Path

import torch

from pipeline.autograd.request import RefusedError

log = logging.getLogger(__name__)


def require_compiler(device: torch.device) -> None:
    """Refuse where nothing can be compiled, else say where compiled code is kept.

    Inductor keeps compiled code on disk. Where the user has not set `TORCHINDUCTOR_CACHE_DIR`, it
    goes to a folder of the user's cache that is shared by all processes on the same kind of
    machine: code for one CPU need not run on another.

    Args:
        device: Where the code will run.

    Raises:
        RefusedError: There is no compiler for it.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_cache_folder()))
    if device.type != "cpu":
        return
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        reason = f"no C++ compiler {name!r} was found; install one or set CXX"
        _say_once(reason)
        raise RefusedError(reason)


@cache
def _say_once(reason: str) -> None:
    log.warning("%s. Nothing is compiled until then, and long jobs take longer", reason)


def _cache_folder() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    machine = f"{platform.machine()} {_flags()} {torch.__version__}"
    return root / "pipeline" / hashlib.sha256(machine.encode()).hexdigest()[:16]


def _flags() -> str:
    """Instruction sets of this CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
