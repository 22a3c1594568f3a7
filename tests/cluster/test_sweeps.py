"""Sweeps over a real Slurm: lost jobs are rows, and the same command runs what is missing."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cluster.lab import wait_for

from pipeline import open_sweep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MOODY = """
import os
import signal
import time
from pathlib import Path
from pipeline import Function, hookimpl

MENDED = Path(__file__).with_name("mended")
ON_SLURM = "SLURM_JOB_ID" in os.environ


def build(b: float = 1.0):
    def f(x):
        if ON_SLURM and not MENDED.exists():
            if b == 2.0:
                os.kill(os.getpid(), signal.SIGKILL)
            if b == 3.0:
                raise ValueError("three")
            if b == 4.0:
                time.sleep(600)
        while ON_SLURM and b == 9.0 and not MENDED.exists():
            time.sleep(0.1)
        return b * (x**3).sum()

    return f


@hookimpl
def pipeline_functions():
    return [Function("moody", build, n=3)]
"""


def sweep(slurm, folder, values, *words):
    (folder / "moody.py").write_text(MOODY)
    command = [
        *slurm.on(0), sys.executable, "-m", "pipeline", "-m", "function=moody", "plugins=[./moody.py]",
        "grid=random", "grid.count=6", f"function_params.b={values}", *launcher(words), *words,
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=folder, env=slurm.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip


def launcher(words):
    """Slurm's, unless another one is asked for."""
    return (
        ()
        if any(word.startswith("hydra/launcher=") for word in words)
        else ("hydra/launcher=slurm",)
    )


def finish(process):
    said, _ = process.communicate(timeout=280)
    return process.returncode, said


def table(folder):
    path = max(folder.glob("outputs/sweeps/*/sweep.csv"), key=os.path.getmtime)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_lost_jobs_are_rows_and_the_same_command_runs_what_is_missing(slurm, tmp_path):
    """Two jobs in each task: one that is lost takes no other one with it."""
    words = ("0,1,2,3,4", "job=gradient,hessian", "hydra.launcher.jobs_per_task=2")
    process = sweep(slurm, tmp_path, *words)
    wait_for(lambda: list(tmp_path.glob("outputs/sweeps/*/sweep.csv")), 60)
    for waiting in (2, 1):  # the jobs that hang, each given out by itself
        wait_for(lambda left=waiting: hanging(slurm, tmp_path) == left, 120)
        slurm.ask("scancel", "--state=RUNNING", "--name=pipeline")
    code, said = finish(process)
    assert code == 1, said
    found = [(row["outcome"], row["reason"]) for row in table(tmp_path)]
    outcomes = ("done", "done", "lost", "failed", "lost")
    expected = [outcome for outcome in outcomes for _job in ("gradient", "hessian")]
    assert [outcome for outcome, _ in found] == expected
    for job, reason in zip((4, 5, 6, 7, 8, 9), REASONS, strict=True):
        assert reason in found[job][1]
    assert "4 done, 4 lost, 2 failed; the same command again runs only what is missing" in said
    (tmp_path / "mended").touch()
    code, said = finish(sweep(slurm, tmp_path, *words))
    assert code == 0, said
    assert "jobs: 10, to run: 6" in said
    first, second = sorted(tmp_path.glob("outputs/sweeps/*"))
    assert (
        _arrays(first) == 4
    )  # what Slurm takes at once: 4 tasks, then the other, then what was left of two
    assert _arrays(second) == 1
    again = [row["outcome"] for row in table(tmp_path)]
    assert again == ["complete already" if one == "done" else "done" for one in expected]
    require_right(tmp_path / "outputs", [0.0, 1.0, 2.0, 3.0, 4.0])


REASONS = (
    "signal 9",
    "signal 9",
    "ValueError: three",
    "ValueError: three",
    "CANCELLED",
    "CANCELLED",
)


def hanging(slurm, folder):
    """How many jobs wait, where one hangs; else 0."""
    waiting = [row["outcome"] for row in table(folder)].count("waiting")
    return waiting if len(slurm.tasks()) == 1 else 0


def _arrays(folder):
    return len(list(folder.rglob("*_submission.sh")))


def require_right(outputs, values):
    joined = open_sweep(outputs)
    assert joined["b"].values.tolist() == values
    x = joined["x"].values
    for b in values:
        assert np.allclose(joined["gradient"].sel(b=b), 3 * b * x**2)
        assert np.allclose(joined["hessian"].sel(b=b), 6 * b * x[:, :, None] * np.eye(3))


def test_the_command_may_be_stopped_and_finds_its_jobs_again(slurm, tmp_path):
    """Two jobs in each task; of one that both commands ask for, the other command knows nothing."""
    per_task = "hydra.launcher.jobs_per_task=2"
    process = sweep(slurm, tmp_path, "7,9,8", "job=gradient", per_task)
    wait_for(lambda: len(slurm.tasks()) == 1 and table(tmp_path)[2]["outcome"] == "done", 120)
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert code == 130, said
    assert "its Slurm jobs go on; the same command waits for them again" in said
    assert "#1  waiting  function_params.b=9" in said
    (task,) = slurm.tasks()
    process = sweep(slurm, tmp_path, "5,9", "job=gradient", per_task)
    wait_for(lambda: [row["outcome"] for row in table(tmp_path)] == ["done", "waiting"], 120)
    wait_for(lambda: slurm.tasks() == [task], 30)
    (tmp_path / "mended").touch()
    code, said = finish(process)
    assert code == 0, said
    assert "1 jobs wait or run already, given out by an earlier command" in said
    assert [_arrays(place) for place in sorted(tmp_path.glob("outputs/sweeps/*"))] == [1, 1]
    require_gradients(tmp_path / "outputs", [5.0, 7.0, 8.0, 9.0])


def test_a_job_of_an_earlier_command_that_is_lost_is_given_out_again(slurm, tmp_path):
    first = sweep(slurm, tmp_path, "9", "job=gradient")
    wait_for(lambda: slurm.tasks(), 120)
    first.kill()
    finish(first)
    process = sweep(slurm, tmp_path, "9", "job=gradient")
    wait_for(lambda: len(list(tmp_path.glob("outputs/sweeps/*/sweep.csv"))) == 2, 120)
    time.sleep(5)  # by then it has asked Slurm
    os.kill(slurm.tasks()[0], signal.SIGKILL)
    (tmp_path / "mended").touch()
    code, said = finish(process)
    assert code == 0, said
    require_gradients(tmp_path / "outputs", [9.0])


def require_gradients(outputs, values):
    joined = open_sweep(outputs)
    assert np.atleast_1d(joined["b"] if len(values) > 1 else joined.attrs["b"]).tolist() == values
    x = joined["x"].values
    for b in values:
        one = joined["gradient"].sel(b=b) if len(values) > 1 else joined["gradient"]
        assert np.allclose(one, 3 * b * x**2)


def test_jobs_get_gpus_of_their_own(slurm, tmp_path):
    (tmp_path / "seen").mkdir()
    text = f"from pathlib import Path\nSEEN = Path({str(tmp_path / 'seen')!r})\n" + MOODY.replace(
        "    return f\n",
        "    if ON_SLURM:\n        (SEEN / str(b)).write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n    return f\n",
    )
    process = sweep(
        slurm, tmp_path, "5,6,7,8", "job=gradient", "hydra/launcher=slurm_gpu",
        "hydra.launcher.cpus_per_task=1", "device=cpu",
    )  # fmt: skip
    (tmp_path / "moody.py").write_text(text)
    code, said = finish(process)
    assert code == 0, said
    assert {path.read_text() for path in (tmp_path / "seen").iterdir()} <= {"0", "1"}
    assert len(list((tmp_path / "seen").iterdir())) == 4


def test_what_slurm_does_not_take(slurm, tmp_path):
    code, said = finish(
        sweep(slurm, tmp_path, "0,1", "job=gradient", "hydra.launcher.partition=nowhere")
    )
    assert code == 1
    assert "error: Slurm does not take the job" in said
    assert "2 waiting" in said
    assert "Traceback" not in said
