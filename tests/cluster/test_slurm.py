"""One job over the nodes of a real Slurm, and what can happen to it there."""

import os
import signal
import subprocess

import numpy as np
import pytest
from cluster.commands import (
    SHARDS,
    SLOW,
    Command,
    finish,
    require_same,
    wait_until_done,
)
from cluster.lab import CPUS, NODES, missing, wait_for

from pipeline import open_results

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_the_numbers_are_those_of_one_process(distributed, undisturbed):
    code, said = distributed.run("function_params.seconds=0.0")
    assert code == 0, said
    assert f"computed {4 * SHARDS} of {4 * SHARDS} points" in said
    require_same(undisturbed, distributed)
    code, said = distributed.run("function_params.seconds=0.0")
    assert code == 0
    assert "complete already" in said


def test_all_derivatives_by_another_route_are_those_of_one_process(distributed):
    words = ("job=all", "route=vmap", "function_params.seconds=0.0")
    code, said = distributed.run(*words)
    assert code == 0, said
    alone = Command(distributed.folder, dict(os.environ), *words, "output_dir=alone")
    code, said = alone.run()
    assert code == 0, said
    shared, alone = (
        next(distributed.folder.glob(f"{place}/all/slow/*/result.h5"))
        for place in ("outputs", "alone")
    )
    with open_results(shared) as one, open_results(alone) as two:
        assert {"x", "status", "value", "jacobian", "hessian"} <= set(one.names)
        for name in one.names:
            assert np.array_equal(one[name][:], two[name][:]), name


def test_tasks_that_are_killed_and_cancelled_are_given_out_again(slurm, distributed, undisturbed):
    process = distributed.start()
    distributed.wait_for_shards(3)
    slurm.ask("scancel", slurm.ask("squeue", "-h", "-r", "-o", "%i").split()[0])
    os.kill(slurm.tasks()[-1], signal.SIGKILL)
    code, said = finish(process)
    assert code == 0, said
    assert "a worker was lost: ExecutorError: Slurm job" in said
    assert "shards were lost and are given out again" in said
    require_same(undisturbed, distributed)


def test_a_disk_that_is_full_on_one_node(slurm, distributed, undisturbed):
    place = distributed.folder / undisturbed.relative_to(undisturbed.parents[4]).parent / "shards"
    place.mkdir(parents=True)
    slurm.start_node_with_a_full_disk(1, place)
    try:
        slurm.wait_until_idle()
        code, said = distributed.run("function_params.seconds=0.0", "executor.workers=3")
    finally:
        slurm.restart_node(1)
        slurm.wait_until_idle()
    assert code == 0, said
    assert "a worker on n1 " in said
    assert "No space left on device" in said
    assert "shards were lost and are given out again" in said
    require_same(undisturbed, distributed)


def test_a_preempted_task_goes_on_later(slurm, distributed, undisturbed):
    process = distributed.start()
    distributed.wait_for_shards(3)
    slurm.ask("sbatch", "-phigh", f"-N{NODES}", f"-n{NODES * CPUS}", "--wrap", "sleep 5")
    wait_for(lambda: "PD" in slurm.ask("squeue", "-h", "-r", "-p", "main", "-o", "%t"), 60)
    code, said = wait_until_done(slurm, process)
    assert code == 0, said
    require_same(undisturbed, distributed)


def test_the_parent_may_die_and_finds_its_tasks_again(distributed, undisturbed):
    first = distributed.start()
    distributed.wait_for_shards(3)
    first.kill()
    first.communicate()
    code, said = distributed.run()
    assert code == 0, said
    assert len(list(distributed.folder.rglob("array-*.json"))) == 1
    require_same(undisturbed, distributed)


def test_two_parents_on_one_job(distributed, undisturbed):
    both = [distributed.start(), distributed.start()]
    for code, said in map(finish, both):
        assert code == 0, said
    require_same(undisturbed, distributed)


def test_ctrl_c_leaves_the_tasks_to_slurm(slurm, distributed, undisturbed):
    process = distributed.start()
    distributed.wait_for_shards(3)
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert code == 130
    assert "its Slurm jobs go on; the same command waits for them again" in said
    assert f"of {SHARDS} shards are safe" in said
    code, said = distributed.run()
    assert code == 0, said
    require_same(undisturbed, distributed)


def test_a_point_that_always_fails_fails_alone(distributed, undisturbed):
    text = SLOW.replace(
        "time.sleep(seconds)",
        "\n        if abs(float(x[0]) - FIRST) < 1e-12:\n            raise ValueError('here')",
    )
    with open_results(undisturbed) as results:
        first = float(results.x[7, 0])
    mine = distributed.folder / "failing.py"
    mine.write_text(f"FIRST = {first!r}\n{text}")
    code, said = distributed.run("plugins=[./failing.py]", "function_params.seconds=0.0")
    assert code == 0, said
    assert "point 7 failed: ValueError: here" in said
    with open_results(distributed.result) as results:
        assert results.count("failed") == 1
        assert results.status[7] == 3


def test_a_point_that_kills_whoever_computes_it_costs_its_own_shard_alone(distributed, undisturbed):
    """Lost three times, which is said; what comes after it in its chunk is computed by others."""
    lethal = "if POISON in x.tolist() and not MENDED.exists():\n            os.kill(os.getpid(), 9)"
    with open_results(undisturbed) as results:
        poison = float(results.x[17, 0])
    text = SLOW.replace("time.sleep(seconds)", f"\n        {lethal}")
    (distributed.folder / "poison.py").write_text(
        f"import os\nfrom pathlib import Path\nPOISON = {poison!r}\nMENDED = Path('mended')\n{text}"
    )
    words = ("plugins=[./poison.py]", "function_params.seconds=0.0", "executor.retries=2")
    code, said = distributed.run(*words)
    assert code == 1, said
    assert (
        f"1 of {SHARDS} shards are still missing after 2 retries, the first one of points 16 to 19"
        in said
    )
    assert "signal 9" in said
    assert said.count("shards were lost and are given out again") == 2
    assert distributed.shards() == SHARDS - 1
    (distributed.folder / "mended").touch()
    code, said = distributed.run(*words)
    assert code == 0, said
    assert f"computed 4 of {4 * SHARDS} points" in said
    require_same(undisturbed, distributed)


def test_a_full_disk_is_one_error_and_nothing_is_lost(distributed, undisturbed, tmp_path):
    disk = tmp_path / "outputs"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        missing(f"no file system can be mounted here: {done.stderr}")
    try:
        code, said = distributed.run("function_params.seconds=0.0")
        assert code == 1
        assert "No space left on device" in said
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        code, said = distributed.run("function_params.seconds=0.0")
        assert code == 0, said
        require_same(undisturbed, distributed)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_device_that_only_nodes_may_have_is_looked_for_there(distributed):
    code, said = distributed.run("device=cuda")
    assert code == 1
    assert "a worker plans the run" in said
    assert "cannot plan the run: device 'cuda' is not there" in said
    assert "Traceback" not in said


def test_what_slurm_does_not_take(distributed):
    code, said = distributed.run("executor.sbatch.partition=nowhere")
    assert code == 1
    assert "error: Slurm does not take the job" in said
    assert "executor.sbatch" in said
    assert "Traceback" not in said


NOTES_ITS_GPU = """
import os
import uuid
from pathlib import Path

Path("seen", uuid.uuid4().hex).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
"""


def test_a_task_gets_its_gpu(distributed):
    seen = distributed.folder / "seen"
    seen.mkdir()
    (distributed.folder / "gpu.py").write_text(NOTES_ITS_GPU + SLOW)
    code, said = distributed.run(
        "plugins=[./gpu.py]", "function_params.seconds=0.0", "executor.sbatch.gpus-per-node=1", "device=cpu"
    )  # fmt: skip
    assert code == 0, said
    assert {file.read_text() for file in seen.iterdir()} & {"0", "1"}
