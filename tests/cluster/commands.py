"""What the tests of this folder run: one job with a slow function, over the nodes of a lab."""

import subprocess
import sys

import numpy as np
from cluster.lab import wait_for

from pipeline import open_results

SLOW = """
import time
import torch
from pipeline import Function, hookimpl


def build(seconds: float = 0.02):
    def f(x):
        time.sleep(seconds)
        return torch.stack([torch.sin(x).prod(), (x**3).sum()])

    return f


@hookimpl
def pipeline_functions():
    return [Function("slow", build, n=3, output_shape=(2,))]
"""
SHARDS = 24


class Command:
    """`python -m pipeline` with a slow function, in a process of its own."""

    def __init__(self, folder, environment, *overrides, before=()):
        self.folder = folder
        (folder / "slow.py").write_text(SLOW)
        self.words = [
            *before, sys.executable, "-m", "pipeline", "job=hessian", "function=slow", "plugins=[./slow.py]",
            "grid=random", f"grid.count={4 * SHARDS}", "shard_rows=4", "route=loop", *overrides,
        ]  # fmt: skip
        self.environment = environment

    def start(self, *overrides):
        return subprocess.Popen(
            [*self.words, *overrides], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *overrides):
        return finish(self.start(*overrides))

    def shards(self):
        return len(list(self.folder.glob("outputs/hessian/slow/*/shards/shard-*.h5")))

    @property
    def result(self):
        (path,) = self.folder.glob("outputs/hessian/slow/*/result.h5")
        return path

    def wait_for_shards(self, count):
        wait_for(lambda: self.shards() >= count, 120)


def finish(process):
    said, _ = process.communicate(timeout=240)
    return process.returncode, said


def require_same(undisturbed, command):
    with open_results(undisturbed) as one, open_results(command.result) as two:
        for name in ("x", "hessian", "status"):
            assert np.array_equal(one[name][:], two[name][:]), name
    assert command.shards() == SHARDS
    assert not list(command.folder.rglob("*.tmp"))


def release(slurm):
    """Let tasks that were requeued start at once, without the two minutes that Slurm waits.

    Returns:
        The tasks that wait or run.
    """
    for name in slurm.ask("squeue", "-h", "-r", "-p", "main", "-t", "PD", "-o", "%i").split():
        slurm.ask("scontrol", "update", f"JobId={name}", "StartTime=now")
    return slurm.ask("squeue", "-h", "-r", "-p", "main", "-o", "%i").split()


def wait_until_done(slurm, process):
    """Wait for a command whose tasks are requeued."""

    def ended():
        release(slurm)
        return process.poll() is not None

    wait_for(ended, 240)
    return finish(process)
