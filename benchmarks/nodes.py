"""How much of three Slurm nodes a whole job uses: by the pipeline, and by hand.

python -m benchmarks.nodes DIRECTORY              # the Slurm of tests/cluster/lab.py, shards of 10 s that sleep
python -m benchmarks.nodes DIRECTORY --shards 60  # a longer job
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.store.reading.reader import open_results

SLEEPER = """
import time
import torch
from pipeline import Function, hookimpl


def build(seconds: float = 0.1):
    def f(x):
        time.sleep(seconds)
        return (x**3).sum()

    return f


@hookimpl
def pipeline_functions():
    return [Function("sleeper", build, n=3)]
"""
ROWS, SECONDS = 100, 0.1  # points of a shard, and of a point: what is slept is all that is work


class Nodes:
    """The nodes of a lab, and what is asked of them."""

    def __init__(self, lab: Any, place: Path, count: int) -> None:
        self.lab, self.place, self.count = lab, place, count
        (place / "sleeper.py").write_text(SLEEPER)

    def words(self, shards: int, output: str) -> list[str]:
        return [
            sys.executable, "-m", "pipeline", "job=value", "function=sleeper", "plugins=[./sleeper.py]", "route=loop",
            "grid=random", f"grid.count={ROWS * shards}", f"shard_rows={ROWS}", "batch=10", f"output_dir={output}",
        ]  # fmt: skip

    def start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(words, cwd=self.place, env=self.lab.environment)

    def by_pipeline(self, shards: int, output: str) -> float:
        """One command over all nodes."""
        one = [
            *self.words(shards, output), "executor=slurm", f"executor.workers={self.count}",
            "+executor.sbatch.exclusive=true",
        ]  # fmt: skip
        return self._passed([one])

    def by_hand(self, shards: int, output: str) -> float:
        """A process on each node, started by srun, with its part of the shards."""
        part = self.words(shards // self.count, output)
        srun = ["srun", "--quiet", "-N1", "-n1", "--mem=900"]
        return self._passed(
            [[*srun, f"--nodelist=n{i + 1}", *part, f"seed={i}"] for i in range(self.count)]
        )

    def _passed(self, commands: Sequence[Sequence[str]]) -> float:
        began = time.monotonic()
        codes = [process.wait() for process in [self.start(words) for words in commands]]
        assert codes == [0] * len(commands), codes
        return time.monotonic() - began

    def timeline(self, output: str, began: float) -> str:
        """When the first shard began and the last one ended, in seconds from the start of the command."""
        times = []
        for shard in self.place.glob(f"{output}/value/sleeper/*/shards/*.h5"):
            with open_results(shard) as results:
                facts = results.provenance
            times += [datetime.fromisoformat(facts[name]) for name in ("started", "finished")]
        seconds = sorted(moment.timestamp() - began for moment in times)
        return (
            f"first shard begun after {seconds[0]:.1f} s, last one ended after {seconds[-1]:.1f} s"
        )


def measure(nodes: Nodes, shards: int, rounds: int) -> None:
    asleep = shards * ROWS * SECONDS / nodes.count
    print(
        f"{shards} shards of {ROWS * SECONDS:.0f} s on {nodes.count} nodes: {asleep:.0f} s asleep"
    )
    theirs, ours = [], []
    for turn in range(rounds):
        theirs.append(nodes.by_hand(shards, f"hand-{turn}"))
        began = time.time()
        ours.append(nodes.by_pipeline(shards, f"ours-{turn}"))
        told = nodes.timeline(f"ours-{turn}", began)
        load = os.getloadavg()[0]
        print(
            f"  by hand {theirs[-1]:.1f} s, one command {ours[-1]:.1f} s: {told}; load {load:.1f}",
            flush=True,
        )
    hand, mine = statistics.median(theirs), statistics.median(ours)
    print(f"medians: {hand:.1f} s and {mine:.1f} s")
    print(f"{hand / mine:.1%} of what a process on each node does by hand, its start included")
    print(f"{asleep / mine:.1%} of nodes that are at work from the first moment to the last")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "place", type=Path, help="directory for Slurm and the results, anew each time"
    )
    parser.add_argument("--shards", type=int, default=18, help="in all, a multiple of the nodes")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    place = given.place.resolve()
    place.mkdir(parents=True)
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from cluster.lab import NODES, Lab

    lab = Lab(place / "lab")
    lab.start()
    try:
        measure(Nodes(lab, place, NODES), given.shards, given.rounds)
    finally:
        lab.stop()


if __name__ == "__main__":
    main()
