"""What several tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `python -m pipeline` does

collect_ignore = ["support"]  # what tests import; some of it changes the process that does

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # for `from conftest import ROOT`

MINE = """
import torch
from pipeline import AnySize, Function, hookimpl


def build(stiffness: float = 1.0):
    def energy(x):
        return 0.5 * stiffness * (x[1:] - x[:-1]).square().sum() + (1 - torch.cos(x)).sum()

    return energy


@hookimpl
def pipeline_functions():
    return [Function("chain", build, n=AnySize(default=4, minimum=2), domain=(-3.0, 3.0),
                     source="Frenkel & Kontorova 1938", summary="Frenkel-Kontorova chain")]
"""


@pytest.fixture
def mine(tmp_path):
    """A user's plugin file."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def cli(tmp_path):
    """Run ``python -m pipeline`` in an empty directory; gives the finished process."""

    def run(*words, module="pipeline", **environment):
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", module, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **environment},
        )

    return run
