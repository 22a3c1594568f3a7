"""The C++ compiler behind the compiled routes, and where its results are kept."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import platform
import shutil
import sys
import tempfile
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
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_cache_folder())
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
    """A folder of the user's cache, or one that ends with the process where there is none that can be written."""
    machine = f"{platform.machine()} {_flags()} {torch.__version__}"
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = root / "pipeline" / hashlib.sha256(machine.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # no home, one that cannot be written, a full disk
        folder = Path(tempfile.mkdtemp(prefix="pipeline-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _flags() -> str:
    """Instruction sets of this CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
