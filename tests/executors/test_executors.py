"""One job over processes of this machine and over Dask: the same numbers, and what can go wrong."""

import functools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import pipeline
from pipeline.errors import ConfigurationError, ExecutorError
from pipeline.executors import ENGINES, build_executor, slurm
from pipeline.executors.base import Limits, Share, interleaved
from pipeline.executors.local import LocalExecutor
from pipeline.executors.slurm import _bytes, _last_words
from pipeline.functions.bound import bind_function
from pipeline.functions.record import Function
from pipeline.grids.points import PointsGrid
from pipeline.job import Job, Workers
from pipeline.runs.distribution import _begin
from pipeline.runs.work import Work
from pipeline.runs.worker import Report, Task, compute_chunk

POINTS = torch.linspace(-1, 1, 120, dtype=torch.float64).reshape(40, 3)


def test_every_engine_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ConfigurationError, match=r"executor 'slurn' is unknown.*slurm"):
        build_executor("slurn", {}, tmp_path)
    for name in ENGINES:
        with pytest.raises(ConfigurationError, match=r"executor.wrokers is unknown.*workers"):
            build_executor(name, {"wrokers": 3}, tmp_path)
        with pytest.raises(ConfigurationError, match=r"executor.workers: expected int"):
            build_executor(name, {"workers": "many"}, tmp_path)


@pytest.mark.parametrize("name", ["local", "slurm"])
def test_numbers_have_to_be_positive(name, tmp_path):
    with pytest.raises(ConfigurationError, match=r"executor.workers: expected a positive number"):
        build_executor(name, {"workers": 0}, tmp_path)


@pytest.mark.slow
def test_an_unknown_engine_is_refused_before_anything_is_written(tmp_path, cli):
    done = cli("executor.name=slurn", f"output_dir={tmp_path}")
    assert done.returncode == 1
    assert "error: executor 'slurn' is unknown" in done.stderr
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("package", ["submitit", "distributed"])
def test_what_has_to_be_installed_is_said(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("pipeline.executors.slurm.find_spec", lambda name: None)
    name = {"submitit": "slurm", "distributed": "dask"}[package]
    with pytest.raises(ConfigurationError, match=rf"pipeline-derivatives\[{name}\]"):
        build_executor(name, {}, tmp_path)


@pytest.mark.slow
def test_a_process_per_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6")
    executor = build_executor("local", {}, tmp_path)
    assert executor.limits.sharing == 3
    with executor:
        futures = executor.submit(_device_after_a_while, [(0,), (1,), (2,)])
        assert sorted(future.result() for future in futures) == ["3", "5", "6"]


def _device_after_a_while(chunk):
    time.sleep(3)  # so that nobody takes two chunks
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_memory_is_read_as_sbatch_reads_it():
    assert [_bytes(size) for size in ("8G", "500", 500, "2t", "64KB")] == [
        8 << 30, 500 << 20, 500 << 20, 2 << 40, 64 << 10,
    ]  # fmt: skip
    assert _bytes("much") is _bytes(None) is None


def test_the_last_words_of_a_task_are_what_was_raised():
    rule = "-" * 22
    trace = "Traceback:\n  File 'x.py'\nValueError: here"
    said = f"Job failed during processing with trace:\n{rule}\n{trace}\n{rule}\nlogs:\n  - a.log"
    assert _last_words(said) == "ValueError: here"
    assert _last_words("Job has no result\nit was cancelled\n") == "it was cancelled"


def test_no_shard_is_left_out():
    for shards in range(12):
        for count in range(1, 5):
            chunks = interleaved(range(shards), count)
            assert sorted(shard for chunk in chunks for shard in chunk) == list(range(shards))
            assert max(map(len, chunks), default=0) - min(map(len, chunks), default=0) <= 1


LONG = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.mark.parametrize(
    ("executor", "route"),
    [
        pytest.param("local", "auto", marks=pytest.mark.timeout(120)),
        pytest.param("local", "loop", marks=LONG),
        pytest.param("local", "scalar", marks=LONG),
        pytest.param("local", "compiled", marks=LONG),
        pytest.param("dask", "auto", marks=LONG),
        pytest.param("dask", "vmap", marks=LONG),
    ],
)
def test_the_numbers_are_those_of_one_process(executor, route, tmp_path, mine):
    options = {"plugins": mine, "shard_rows": 7, "route": route}
    alone = pipeline.run("chain", POINTS, "all", output_dir=tmp_path / "a", **options)
    shared = pipeline.run(
        "chain", POINTS, "all", output_dir=tmp_path / "b", executor={"name": executor, "workers": 2}, **options
    )  # fmt: skip
    assert alone.attrs["run_id"] == shared.attrs["run_id"]
    assert {"x", "status", "value", "gradient", "hessian"} <= set(alone.names)
    for name in alone.names:
        assert np.array_equal(alone[name][:], shared[name][:]), name


def scaled(x, scale):
    return (scale * x**3).sum()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_objects_are_sent_to_workers(tmp_path):
    stored = pipeline.run(
        functools.partial(scaled, scale=2.0), POINTS, "gradient", output_dir=tmp_path,
        executor="local", shard_rows=20,
    )  # fmt: skip
    assert torch.allclose(torch.from_numpy(stored.gradient[:]), 6 * POINTS**2)


def test_an_object_that_cannot_be_sent(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ExecutorError, match=r"cannot be sent to other processes.*cloudpickle"):
        pipeline.run(lambda x: x.sum(), POINTS, "value", output_dir=tmp_path, executor="local")


FATAL = """
import multiprocessing
import os
import time
from pathlib import Path
from pipeline import Function, hookimpl

ARMED = Path(__file__).with_name("armed")


def build():
    def f(x):
        time.sleep(0.02)
        if multiprocessing.parent_process() and 0.5 < x[0] < 0.7 and ARMED.exists():
            if ARMED.read_text() == "once":
                ARMED.unlink()
            os.kill(os.getpid(), 9)
        return (x**3).sum()

    return f


@hookimpl
def pipeline_functions():
    return [Function("fatal", build, n=3)]
"""


@pytest.fixture
def fatal(tmp_path):
    """A function that kills a worker, as long as the file `armed` is there."""
    (tmp_path / "fatal.py").write_text(FATAL)
    return functools.partial(
        pipeline.run, "fatal", POINTS, "gradient", plugins=tmp_path / "fatal.py", shard_rows=4,
        route="loop", output_dir=tmp_path, executor={"name": "local", "workers": 2, "retries": 1},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_worker_that_is_killed_costs_nothing(fatal, tmp_path, caplog):
    (tmp_path / "armed").write_text("once")
    stored = fatal()
    assert "a worker was lost: ExecutorError: its process has ended" in caplog.text
    assert "are given out again" in caplog.text
    assert torch.allclose(torch.from_numpy(stored.gradient[:]), 3 * POINTS**2)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_retries_are_bounded_and_what_is_done_stays(fatal, tmp_path):
    (tmp_path / "armed").write_text("always")
    with pytest.raises(
        ExecutorError,
        match=r"of 10 shards are still missing after 1 retries, the first one of points \d+ to \d+; last loss: a",
    ):
        fatal()
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("shard-*.h5")}
    assert 0 < len(done) < 10
    (tmp_path / "armed").unlink()
    stored = fatal()
    assert torch.allclose(torch.from_numpy(stored.gradient[:]), 3 * POINTS**2)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("shard-*.h5")}
    assert kept.items() >= done.items()


def worker_processes():
    found = subprocess.run(
        ["pgrep", "-f", "multiprocessing.spawn import spawn_main"], capture_output=True, check=False
    )
    return set(found.stdout.split())


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(fatal, tmp_path, number):
    before = worker_processes()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pipeline", "job=gradient", "function=fatal", "grid=random",
            "grid.count=2000", "route=loop", "shard_rows=10", "plugins=[./fatal.py]",
            "executor=local", "executor.workers=2",
        ],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        # a job in the background ignores SIGINT, and its children would too
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not list(tmp_path.rglob("shard-*.h5")):
        assert process.poll() is None
        time.sleep(0.05)
    assert worker_processes() - before
    process.send_signal(number)
    assert process.wait(30) == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    deadline = time.monotonic() + 20
    while worker_processes() - before:
        assert time.monotonic() < deadline, "workers go on without their parent"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_worker_that_is_starting_is_stopped_too():
    began = time.monotonic()
    with LocalExecutor(2, ()) as executor:
        futures = executor.submit(time.sleep, [100, 100])
        executor.cancel()
    assert time.monotonic() - began < 60
    assert all(future.exception() for future in futures)


@pytest.mark.slow
def test_an_error_that_would_come_again_is_not_retried(tmp_path):
    """The workers see another source than the process that planned."""
    plugin = tmp_path / "changing.py"
    plugin.write_text(
        "import multiprocessing\nfrom pipeline import Function, hookimpl\n\n\n"
        "def build(scale: float = 2.0 if multiprocessing.parent_process() else 1.0):\n"
        "    return lambda x: scale * (x**3).sum()\n\n\n"
        "@hookimpl\ndef pipeline_functions():\n    return [Function('changing', build, n=3)]\n"
    )
    job = [
        "job=gradient",
        "function=changing",
        f"plugins=[{plugin}]",
        "executor=local",
        "grid=random",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *job, "grid.count=8"], cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "a worker on" in done.stderr
    assert "it sees other files or another source" in done.stderr
    assert "given out again" not in done.stderr


@pytest.fixture
def scheduler():
    """A Dask that somebody else has started, as far as the job can tell."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_workers_elsewhere_plan_the_run(scheduler, tmp_path, mine, caplog):
    caplog.set_level("INFO")
    options = {"plugins": mine, "shard_rows": 7}
    dask = {"name": "dask", "address": scheduler}
    alone = pipeline.run("chain", POINTS, "all", output_dir=tmp_path / "a", **options)
    shared = pipeline.run(
        "chain", POINTS, "all", output_dir=tmp_path / "b", executor=dask, **options
    )
    assert "a worker plans the run" in caplog.text
    assert np.array_equal(alone.hessian[:], shared.hessian[:])
    with pytest.raises(ExecutorError, match=r"(?s)cannot plan the run: .*returns two values"):
        pipeline.run(Unsteady(), POINTS, "gradient", output_dir=tmp_path, executor=dask)


class Unsteady:
    """A function with hidden state, but for the process that asks."""

    calls = 0

    def __call__(self, x):
        Unsteady.calls += multiprocessing.parent_process() is not None
        return (x**3).sum() * (1 + Unsteady.calls)


def test_a_worker_that_sees_another_directory(tmp_path):
    function = bind_function(Function("mine", lambda: scaled, n=3), {}, 3)
    work = Work(Job("value", ("value",), output_dir=tmp_path), function, PointsGrid(POINTS))
    task = Task(work.job, tmp_path, work.run_id, work.function, work.grid)
    assert "finds no run.json in" in compute_chunk(task, (0,)).error
    assert "finds no directory" in compute_chunk(task, Share(0, 1)).error
    assert "arrives at run" in compute_chunk(replace(task, run_id="other"), (0,)).error


def test_a_worker_that_lives_on_takes_up_the_run_that_it_is_given(tmp_path):
    function = bind_function(Function("twice", lambda: lambda x: (x**2).sum(), n=3), {}, 3)

    def computed(place, rows):
        job = Job("value", ("value",), output_dir=tmp_path / place, shard_rows=rows)
        work = Work(job, function, PointsGrid(POINTS))
        work.directory.make()
        task = Task(job, tmp_path, work.run_id, work.function, work.grid)
        report = compute_chunk(task, Share(0, 1))
        return report.points, len(work.directory.finished_shards()), work.directory.path

    points, shards, place = computed("a", 20)
    assert (points, shards) == (40, 2)
    assert computed("a", 20)[0] == 0
    assert computed("b", 20)[:2] == (40, 2)
    shutil.rmtree(place)
    assert computed("a", 30)[:2] == (40, 2)


def _gone():
    raise ExecutorError("gone")


def _full():
    return Report(0, "n7 123", "cannot write run.json: No space left on device", elsewhere=True)


@pytest.mark.parametrize(
    ("end", "said"), [(_gone, "gone"), (_full, "n7 123: cannot write run.json")]
)
def test_planning_workers_that_are_all_lost(end, said, tmp_path, caplog):
    function = bind_function(Function("mine", lambda: scaled, n=3), {}, 3)
    job = Job("value", ("value",), output_dir=tmp_path, executor=Workers("slurm", retries=2))
    work = Work(job, function, PointsGrid(POINTS))
    work.directory.make()
    with ThreadPoolExecutor(1) as threads:
        executor = Losing(threads, end)
        with pytest.raises(
            ExecutorError,
            match=rf"every worker that was to plan the run was lost; the last one: {said}",
        ):
            _begin(work, executor)
    assert caplog.text.count(f"a worker that was to plan the run was lost: {said}") == 3
    assert executor.avoided == (["n7"] if end is _full else []) * 3


class Losing(LocalExecutor):
    """Every worker ends without a plan."""

    def __init__(self, threads, end):
        super().__init__(1, [])
        self._pool, self._end, self.avoided = threads, end, []

    @property
    def limits(self):
        return Limits(elsewhere=True)

    def submit(self, work, items):
        return [self._pool.submit(self._end) for _ in items]

    def avoid(self, nodes):
        self.avoided += nodes


def test_an_option_of_sbatch_that_is_null_is_left_out(tmp_path):
    pytest.importorskip("submitit")

    def asked(**options):
        executor = slurm.build(tmp_path, sbatch=options)
        return executor._parameters["slurm_additional_parameters"]

    assert asked(partition=None, mem="8G") == {"requeue": True, "mem": "8G"}
    assert asked(requeue=None) == {}


@pytest.mark.parametrize("squeue", [None, "exit 1", "sleep 9"])
def test_where_slurm_does_not_answer_nothing_of_an_earlier_command_is_found(
    squeue, tmp_path, monkeypatch
):
    pytest.importorskip("submitit")
    (tmp_path / "array-7.json").write_text('{"7_0": [1, 2], "7_1": [3], "7_2": [4]}')
    if squeue is not None:
        for name in ("squeue", "scontrol"):
            (tmp_path / name).write_text(f"#!/bin/sh\necho $0 >> {tmp_path}/asked\n{squeue}\n")
            (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + ("" if squeue is None else ":/bin"))
    monkeypatch.setattr(slurm, "ANSWER_SECONDS", 0.6)
    monkeypatch.setattr(slurm, "ASK_SECONDS", 0.5)
    assert slurm.build(tmp_path).recover() == []
    if squeue is not None:
        assert (tmp_path / "asked").read_text().count("squeue") == 1  # for all tasks at once
    assert slurm._largest_array() == slurm.LARGEST_ARRAY
    assert slurm._state("7_0") == "Slurm does not know it any more"
