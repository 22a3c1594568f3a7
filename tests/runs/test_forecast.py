"""The dry run: what a job would take, and nothing written."""

import json
import re
from dataclasses import replace

import pytest

from pipeline.errors import StoreError
from pipeline.job import Job, Workers
from pipeline.registry import build_registry
from pipeline.runner import run
from pipeline.runs.binding import bind_job
from pipeline.runs.contents import layout_of
from pipeline.runs.forecast import forecast
from pipeline.runs.work import Work


def job_of(folder, **changes):
    return Job(
        name="hessian", operators=("hessian",), function="rosenbrock", grid="linspace",
        grid_options={"count": 20}, output_dir=folder, **changes,
    )  # fmt: skip


def forecast_of(job):
    return forecast(job, *bind_job(job, build_registry()))


def run_of(job):
    registry = build_registry()
    return run(job, *bind_job(job, registry), registry.hook)


def test_what_is_foretold_is_what_the_run_does(tmp_path):
    job = job_of(tmp_path, shard_rows=150)
    told = forecast_of(job)
    assert not list(tmp_path.iterdir())
    assert told.points_left == 400
    assert 0 < told.computing < told.seconds < 60
    summary = run_of(job)
    plan = json.loads((summary.path.parent / "run.json").read_text())
    assert told.work.directory.path == summary.path.parent
    assert told.shard_rows == plan["shard_rows"] == 150
    chosen = told.evaluator.plan
    assert (chosen.route, chosen.mode, chosen.batch) == (plan["route"], plan["mode"], plan["batch"])
    rows = 400 * (2 * 8 + 4 * 8 + 1)
    assert told.bytes_left == 2 * rows  # shards, and a small result as a file of its own
    assert 2 * rows < summary.bytes < 2 * rows + 4 * 100_000
    after = forecast_of(job)
    assert after.points_left == 0
    assert "time     none: everything is there" in after.describe()
    summary.path.unlink()
    (summary.path.parent / "shards" / "shard-00001.h5").unlink()
    again = forecast_of(job)
    assert again.points_left == 150
    assert "250 of 400 points are there" in again.describe()
    assert "as this run was begun" in again.describe()


def test_time_is_that_of_what_is_left_shared_by_no_more_workers_than_shards(tmp_path, monkeypatch):
    job = job_of(tmp_path, shard_rows=150)
    summary = run_of(job)
    summary.path.unlink()
    (summary.path.parent / "shards" / "shard-00001.h5").unlink()
    monkeypatch.setattr("pipeline.runs.forecast._measured", lambda evaluator, grid: 2.0)
    again = forecast_of(job)
    assert again.computing == 150 * 2.0
    many = replace(again, workers=8, planning=1.0, points_left=310)  # of three shards
    assert many.seconds == pytest.approx(1.0 + 300.0 / 3)


def test_the_evidence_is_told_in_the_words_of_results_show(tmp_path):
    text = forecast_of(job_of(tmp_path)).describe()
    assert "evidence\n  route " in text
    assert re.search(r"^  compared +\d+ points, in batches of 1, ", text, flags=re.MULTILINE)
    assert "_checked" not in text


def test_a_larger_result_is_not_copied(tmp_path):
    work = Work(job_of(tmp_path), *bind_job(job_of(tmp_path), build_registry()))
    told = forecast_of(job_of(tmp_path))
    assert "and once more in result.h5" in told.describe()
    assert layout_of(work).row_bytes() == 49


def test_workers_share_the_time_and_not_the_cost(tmp_path):
    one = forecast_of(job_of(tmp_path, shard_rows=100))
    four = forecast_of(
        job_of(tmp_path, shard_rows=100, executor=Workers("local", 2, {"workers": 4}))
    )
    assert (one.workers, four.workers, four.cores) == (1, 4, 1)
    assert "4 workers" in four.describe()
    text = re.search(r"cost +(\S+) core-hours \(1 threads", four.describe())
    assert text is not None
    assert float(text[1]) == pytest.approx(4 * four.seconds / 3600, rel=0.01)


def test_a_function_of_the_loop_is_measured_in_few_calls(tmp_path):
    job = job_of(tmp_path)
    slow = Job(**{**vars(job), "options": type(job.options)(route="loop")})
    assert forecast_of(slow).evaluator.plan.route == "loop"


def test_what_cannot_be_written_is_refused_after_it_was_told(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    told = forecast_of(job_of(tmp_path))
    assert "10 bytes free" in told.describe()
    with pytest.raises(
        StoreError, match="the results take .* has 10 bytes free; make room, choose output_dir="
    ):
        told.require_room()
    monkeypatch.undo()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(StoreError, match="cannot be written to; choose another output_dir="):
        told.require_room()


@pytest.mark.slow
@pytest.mark.parametrize("word", ["dry_run=true", "explain=true"])
def test_on_the_command_line(cli, tmp_path, word):
    done = cli("job=hessian", "grid.count=5", word)
    assert done.returncode == 0, done.stderr
    for line in (
        "job ",
        "plan ",
        "memory ",
        "on disk ",
        "time ",
        "cost ",
        "where ",
        "dry run: nothing was written",
    ):
        assert f"\n{line}" in f"\n{done.stdout}"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_exit_code_where_the_run_would_be_refused(cli):
    done = cli("grid.count=5", "dry_run=true", "output_dir=/proc/nowhere")
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "choose" in done.stderr
    assert "output_dir=" in done.stderr
    assert "plan " in done.stdout
