"""Where numbers come from: packages, machine, source, time."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

NAME = re.compile(r"^Name: *(\S+)", re.MULTILINE)
VERSION = re.compile(r"^Version: *(\S+)", re.MULTILINE)


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def collect(config: Mapping[str, str]) -> dict[str, Any]:
    """Describe this process and where its code comes from.

    Args:
        config: Texts of the configuration, e.g. config.yaml.

    Returns:
        Texts and numbers by name.
    """
    return {
        "config_yaml": config.get("config.yaml", ""),
        "overrides": config.get("overrides.yaml", ""),
        "packages_json": json.dumps(_packages(), sort_keys=True),
        "environment_json": json.dumps(_environment(), sort_keys=True),
        "host": socket.gethostname(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID", ""),
        **_git(Path.cwd()),
    }


@cache
def _packages() -> dict[str, str]:
    # the header is searched as text: parsing it as mail takes ten times as long
    headers = [entry.read_text("METADATA") or "" for entry in distributions()]
    fields = [(NAME.search(header), VERSION.search(header)) for header in headers]
    return {name[1]: version[1] for name, version in fields if name and version}


def _environment() -> dict[str, str]:
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "SLURM_JOB_ID")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": str(os.cpu_count()),
        **kept,
    }


@cache
def _git(directory: Path) -> dict[str, Any]:
    commit = _run_git(directory, "rev-parse", "HEAD")
    changes = _run_git(directory, "status", "--porcelain", "--untracked-files=no") if commit else ""
    return {"git_commit": commit, "git_dirty": int(bool(changes))}


def _run_git(directory: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=directory, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
