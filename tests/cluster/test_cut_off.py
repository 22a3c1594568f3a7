"""Nodes that are cut off in the middle of a run, and come back.

What was lost with them is started elsewhere: nothing that was reported is lost, and what two write
counts once.
"""

import hashlib
import os
import signal
from contextlib import suppress

import pytest
from cluster.commands import SHARDS, SLOW, release, require_same, wait_until_done
from cluster.lab import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def begun(distributed):
    """A run over three nodes, its planning short and its shards long, of which some are there."""
    long = "any(Path.cwd().rglob('shard-*.h5'))"
    text = SLOW.replace("sleep(seconds)", f"sleep(seconds if {long} else 0.0)")
    (distributed.folder / "slow.py").write_text(f"from pathlib import Path\n{text}")
    process = distributed.start("function_params.seconds=0.15", "executor.workers=3")
    distributed.wait_for_shards(3)
    return process


def test_power_fails_on_a_node(slurm, network, begun, distributed, undisturbed):
    network.cut(1)
    slurm.kill_node(1)
    try:
        code, said = wait_until_done(slurm, begun)
    finally:
        network.mend(1)
        slurm.start_node(1)
        slurm.wait_until_idle()
    require_complete(code, said, undisturbed, distributed)


def test_tasks_that_come_back_from_the_dead(slurm, network, begun, distributed, undisturbed):
    """Two nodes go on where nobody hears of them, but stand still for a while in the middle of a shard.

    One task comes back beside the one that was started in its place, the other one when everything
    is complete: both write shards that others write as well.
    """
    for node in (1, 2):
        network.cut(node)
    early, late, other = (task for node in (1, 2, 3) for task in slurm.tasks_on(node))
    try:
        for task in (early, late):
            wait_for(lambda task=task: stopped_at_a_shard(distributed, task), 60)
        wait_for(lambda: replacements(slurm, other) == 2, 120)
        os.kill(early, signal.SIGCONT)
        code, said = wait_until_done(slurm, begun)
        require_complete(code, said, undisturbed, distributed)
        before = contents(distributed)
    finally:
        for task in (early, late):
            with suppress(ProcessLookupError):
                os.kill(task, signal.SIGCONT)
        wait_until_ended(slurm, [early, late])
        come_back(slurm, network)
    assert contents(distributed) == before
    code, said = distributed.run("function_params.seconds=0.15", "executor.workers=3")
    assert code == 0, said
    assert "complete already" in said
    require_same(undisturbed, distributed)


def replacements(slurm, other):
    """How many tasks have been started on the last node beside its own one."""
    release(slurm)
    return len({*slurm.tasks_on(3)} - {other})


def require_complete(code, said, undisturbed, distributed):
    assert code == 0, said
    assert said.count(" points durable") == SHARDS
    assert f"computed {4 * SHARDS} of {4 * SHARDS} points" in said
    assert "every derivative is finite" in said
    require_same(undisturbed, distributed)


def stopped_at_a_shard(command, task):
    """Stop a task; where it is not in the middle of a shard, let it go on a little."""
    os.kill(task, signal.SIGSTOP)
    if any(command.folder.rglob(f".shard-*.{task}.*.tmp")):
        return True
    os.kill(task, signal.SIGCONT)
    return False


def contents(command):
    """What a run has in its result and in its shards."""
    files = sorted(command.result.parent.rglob("*.h5"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def wait_until_ended(slurm, tasks):
    """Wait for tasks, and until Slurm has none that could start on their node beside them.

    A task that does so makes slurmctld of 22.05 crash.
    """
    wait_for(lambda: not set(tasks) & set(slurm.tasks()), 120)
    wait_for(lambda: release(slurm) == [], 120)


def come_back(slurm, network):
    for node in (1, 2):
        network.mend(node)
        slurm.restart_node(node)
    slurm.wait_until_idle()
