"""Sweeps from the command line: what becomes of every job, and the same command again."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from pipeline import open_sweep
from pipeline.errors import ConfigurationError, ExecutorError, StoreError
from pipeline.settings import CONF, register_schema
from pipeline.sweeps.launch import Composed, _given_out, _mark, _outcomes
from pipeline.sweeps.table import COMPLETE, DONE, FAILED, LOST, MOST_LISTED, WAITING, Row, Sweep

MOODY = """
import os
import signal
from pipeline import Function, hookimpl


def build(b: float = 1.0):
    def f(x):
        if b == 2.0 and os.environ.get("LETHAL"):
            os.kill(os.getpid(), signal.SIGKILL)
        if b == 3.0 and not os.environ.get("MENDED"):
            raise ValueError("three")
        return b * (x**3).sum()

    return f


@hookimpl
def pipeline_functions():
    return [Function("moody", build, n=3)]
"""
WORDS = (
    "-m", "job=gradient", "function=moody", "plugins=[./moody.py]", "grid=random", "grid.count=6",
)  # fmt: skip


def table(folder):
    """Outcomes of the last sweep by the value of b."""
    path = max(folder.glob("outputs/sweeps/*/sweep.csv"), key=os.path.getmtime)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["job"]) for row in rows] == list(range(len(rows)))
    return {row["overrides"].partition("params.b=")[2].split()[0]: row for row in rows}


def outcomes(folder):
    return {name: row["outcome"] for name, row in table(folder).items()}


@pytest.mark.slow
def test_a_job_that_fails_leaves_the_others_alone(cli, tmp_path):
    (tmp_path / "moody.py").write_text(MOODY)
    words = (*WORDS, "function_params.b=3,4,5")
    done = cli(*words, "hydra.sweeper.max_batch_size=1")
    assert done.returncode == 1
    assert outcomes(tmp_path) == {"3": FAILED, "4": DONE, "5": DONE}
    assert "#0  failed  function_params.b=3  function 'moody' raised at all" in done.stdout
    assert "1 failed, 2 done; the same command again runs only what is missing" in done.stdout
    assert "Traceback" not in done.stderr
    done = cli(*words, MENDED="1")
    assert done.returncode == 0, done.stderr
    assert outcomes(tmp_path) == {"3": DONE, "4": COMPLETE, "5": COMPLETE}
    rows = table(tmp_path)
    assert {row["value"] for row in rows.values()} == {"0.0"}
    assert all((tmp_path / row["run"] / "result.h5").is_file() for row in rows.values())
    joined = open_sweep(tmp_path / "outputs")
    x = joined["x"].values
    for b in (3.0, 4.0, 5.0):
        assert np.allclose(joined["gradient"].sel(b=b), 3 * b * x**2)


@pytest.mark.slow
def test_what_cannot_be_composed_or_found_is_said_before_anything_runs(cli, tmp_path):
    done = cli("-m", "job=gradient,gradeint", "grid.count=3")
    assert done.returncode == 1
    assert "error: job=gradeint is unknown. Did you mean 'gradient'?" in done.stderr
    assert not list(tmp_path.rglob("result.h5"))
    done = cli("-m", "function=rosenbrock,rosenbrok", "grid.count=3", "job=gradient")
    assert done.returncode == 1
    assert "function 'rosenbrok' is unknown. Did you mean 'rosenbrock'" in done.stdout
    assert len(list(tmp_path.rglob("result.h5"))) == 1


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_process_that_is_killed_is_one_row(cli, tmp_path):
    (tmp_path / "moody.py").write_text(MOODY)
    words = (
        *WORDS,
        "function_params.b=0,1,2,3,4",
        "hydra/launcher=local",
        "hydra.launcher.workers=2",
    )
    done = cli(*words, LETHAL="1")
    assert done.returncode == 1
    assert outcomes(tmp_path) == {"0": DONE, "1": DONE, "2": LOST, "3": FAILED, "4": DONE}
    assert "killed, or out of memory" in table(tmp_path)["2"]["reason"]
    done = cli(*words, MENDED="1")
    assert done.returncode == 0, done.stderr
    assert list(outcomes(tmp_path).values()) == [COMPLETE, COMPLETE, DONE, DONE, COMPLETE]
    assert open_sweep(tmp_path / "outputs")["gradient"].sizes["b"] == 5


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_in_processes_is_stopped_at_once(tmp_path, number):
    text = MOODY.replace(
        "        if b == 2.0",
        "        Path(f'at-{b}').touch()\n        time.sleep(100)\n        if b == 2.0",
    )
    (tmp_path / "moody.py").write_text(f"import time\nfrom pathlib import Path\n{text}")
    words = (*WORDS, "function_params.b=0,1", "hydra/launcher=local", "hydra.launcher.workers=1")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    while not (tmp_path / "at-0.0").exists():
        assert process.poll() is None
        time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(number)
    said, _ = process.communicate(timeout=90)
    assert time.monotonic() - began < 60
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "2 waiting; the same command again runs only what is missing" in said
    assert not (tmp_path / "at-1.0").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("come_to", "lost"), [((), None), ((0, 1), 1), ((0, 1, 2), 2), ((0,), None)]
)
def test_a_lost_task_loses_the_job_that_it_was_at(cli, tmp_path, monkeypatch, come_to, lost):
    """Of four jobs the first one is complete."""
    (tmp_path / "moody.py").write_text(MOODY)
    assert cli(*WORDS[1:], "function_params.b=5").returncode == 0
    monkeypatch.chdir(tmp_path)
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        series = tuple(
            Composed(Row(number, ""), compose(
                "config", [*WORDS[1:], f"function_params.b={5 + number}", f"hydra.job.num={number}"],
                return_hydra_config=True,
            ))
            for number in range(4)
        )  # fmt: skip
    for number in come_to:
        mark = _mark(series[number].config)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    future = Future()
    future.set_exception(ExecutorError("gone"))
    ended, left = _outcomes(future, series)
    found = {job.row.job: done.status.name for job, done in ended}
    assert found == {0: "COMPLETED"} | ({} if lost is None else {lost: "FAILED"})
    assert [job.row.job for job in left] == [n for n in (1, 2, 3) if n != lost]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_optuna_minimises_what_a_job_returns(cli, tmp_path):
    pytest.importorskip("optuna")
    (tmp_path / "half.py").write_text(
        MOODY.replace("return b * (x**3).sum()", "return (b - x[0]).sqrt() * x.sum()")
    )
    done = cli(
        *WORDS[:3], "plugins=[./half.py]", "grid=random", "grid.count=50", "seed=3",
        "hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.sampler.seed=1", "function_params.b=interval(-1,1)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path)
    assert len(rows) == 6
    values = {float(b): float(row["value"]) for b, row in rows.items()}
    assert min(values.values()) < max(values.values())
    best = min(values, key=values.get)
    assert f"Best parameters: {{'function_params.b': {best}" in done.stderr
    for b, value in values.items():  # a derivative is finite where the root is
        run = tmp_path / rows[str(b)]["run"] / "result.h5"
        assert value == count_below(run, b)


def count_below(path, b):
    from pipeline import open_results

    with open_results(path) as results:
        return int((results.x[:, 0] > b).sum())


def test_a_long_table_shows_what_went_wrong(tmp_path):
    sweep = Sweep(tmp_path)
    sweep.put([Row(i, f"a=1 b={i}", DONE, 0.0, f"run-{i}") for i in range(100)])
    sweep.put([Row(77, "a=1 b=77", LOST, reason="x" * 500), Row(100, "a=1 b=100", WAITING)])
    said = sweep.describe().splitlines()
    assert len(said) == MOST_LISTED + 3
    assert any(line.startswith("#77   lost     b=77") and line.endswith("x…") for line in said)
    assert said[-3] == "… 61 more"
    assert said[-2].startswith("99 done, 1 lost, 1 waiting; the same command again")
    assert [row.job for row in sweep.bad] == [77, 100]


def test_a_table_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreError, match=r"cannot write .*sweep.csv.*choose another hydra.sweep.dir"
    ):
        Sweep(tmp_path / "file").put([Row(0, "")])


def test_the_slurm_launcher_says_what_has_to_be_installed(monkeypatch):
    from hydra_plugins import pipeline_launchers

    monkeypatch.setattr(pipeline_launchers, "_Stock", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'pipeline-derivatives\[slurm\]'"):
        pipeline_launchers.SlurmLauncher()


def test_tasks_of_a_sweep_have_at_least_one_job():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    from hydra_plugins import pipeline_launchers

    with pytest.raises(
        ConfigurationError, match="jobs_per_task: expected a positive number, got 0"
    ):
        pipeline_launchers.SlurmLauncher(jobs_per_task=0)


def test_jobs_that_an_engine_refuses_wait_while_others_run(caplog):
    class Full:
        def submit(self, call, batches):
            raise ExecutorError("the queue is full")

    series = [SimpleNamespace(config=None)]
    waiting = deque([series])
    assert _given_out(Full(), None, waiting, patient=True) == {}
    assert list(waiting) == [series]
    assert "the queue is full; trying again later" in caplog.text
    with pytest.raises(ExecutorError, match="the queue is full"):
        _given_out(Full(), None, waiting, patient=False)
