"""Tasks and jobs that are out of time: what they have not done is done by others, or by a new start."""

import pytest
from cluster.commands import SLOW, Command, finish, require_same, wait_until_done
from cluster.lab import wait_for

from pipeline import open_sweep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

HANGS_ONCE = """
import os
import time
from pathlib import Path


def hang_once():
    \"\"\"When three shards are there, whoever is first does nothing more until it is stopped.\"\"\"
    if "SLURM_JOB_ID" not in os.environ or len(list(Path.cwd().rglob("shard-*.h5"))) < WHEN:
        return
    try:
        with Path("hung").open("x") as file:
            file.write(os.environ["SLURM_JOB_ID"])
    except FileExistsError:
        return
    time.sleep(600)
"""


def hanging(slurm, folder, when, *words):
    folder.mkdir()
    command = Command(folder, slurm.environment, *words, before=slurm.on(0))
    text = SLOW.replace("time.sleep(seconds)", "hang_once()")
    (folder / "slow.py").write_text(f"WHEN = {when}\n{HANGS_ONCE}{text}")
    return command


def set_limit(slurm, command, seconds):
    """Let the time limit of what hangs be over soon: a minute is the least that may be asked for."""
    hung = command.folder / "hung"
    wait_for(lambda: hung.exists() and hung.read_text(), 120)
    slurm.ask("scontrol", "update", f"JobId={hung.read_text()}", f"EndTime=now+{seconds}")


def test_tasks_and_jobs_that_are_out_of_time(slurm, tmp_path, undisturbed):
    """Both at once: Slurm looks for them every half minute."""
    job = hanging(
        slurm, tmp_path / "job", 3, "executor=slurm", "executor.workers=3", "executor.timeout_min=9"
    )
    sweep = hanging(
        slurm, tmp_path / "sweep", 0, "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.timeout_min=9",
        "hydra.launcher.max_num_timeout=9", "hydra.launcher.signal_delay_s=15",
    )  # fmt: skip
    sweep.words.insert(sweep.words.index("pipeline") + 1, "-m")
    distributed, jobs = job.start(), sweep.start()
    set_limit(slurm, job, 1)
    set_limit(slurm, sweep, 20)  # so that the warning comes first
    code, said = finish(distributed)
    assert code == 0, said
    assert "TIMEOUT" in said
    assert "shards were lost and are given out again" in said
    require_same(undisturbed, job)
    code, said = wait_until_done(slurm, jobs)
    assert code == 0, said
    assert "2 done" in said
    assert (tmp_path / "sweep" / "hung").exists()
    logs = [file.read_text() for file in sweep.folder.rglob("*_log.*")]
    assert any("Exiting gracefully after preemption/timeout" in log for log in logs)
    joined = open_sweep(sweep.folder / "outputs")
    assert joined["status"].values.min() == 1
