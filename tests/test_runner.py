"""The run: resume, identity, observers, bad points, what is in the way."""

import dataclasses
import json
import logging
from importlib.metadata import version

import h5py
import numpy as np
import pytest
import torch

from pipeline import hookimpl, open_results
from pipeline.autograd.request import RefusedError
from pipeline.autograd.routes.vmap import VmapRoute
from pipeline.errors import ConfigurationError, DisagreementError, StoreError
from pipeline.functions.bound import BoundFunction
from pipeline.functions.record import Function
from pipeline.grids.points import PointsGrid
from pipeline.job import Job, Options
from pipeline.registry import Registry
from pipeline.runner import run
from pipeline.store.layout import read_group

POINTS = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(10, 2)


def quartic(x):
    return (x**4).sum() + x.prod()


def bound(f=quartic, digest="d", shape=()):
    return BoundFunction(Function("quartic", lambda: f, n=2), {}, 2, shape, digest)


class Recorder:
    """Writes down what it observes."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def pipeline_run_started(self, run):
        self.seen.append(("started", run.points_done))

    @hookimpl
    def pipeline_shard_finished(self, run, shard):
        assert shard.path.is_file()
        self.seen.append(("shard", shard.index))

    @hookimpl
    def pipeline_point_failed(self, run, index, reason):
        self.seen.append(("failed", index, reason))

    @hookimpl
    def pipeline_run_finished(self, run, summary):
        assert summary.path.is_file()
        self.seen.append(("finished", summary.computed))


class Stop:
    """Interrupts the run after some shards."""

    def __init__(self, after):
        self.after = after

    @hookimpl
    def pipeline_shard_finished(self, run, shard):
        if shard.index + 1 == self.after:
            raise KeyboardInterrupt


def job(tmp_path, **changes):
    options = Options(device="cpu", **changes.pop("options", {}))
    return Job(
        "test", ("value", "hessian"), options=options, output_dir=tmp_path, shard_rows=4, **changes
    )


def go(a_job, *observers, function=None, points=POINTS):
    hook = Registry.of({str(i): observer for i, observer in enumerate(observers)}).hook
    return run(a_job, function or bound(), PointsGrid(points), hook)


def test_a_run_tells_its_observers_what_is_durable(tmp_path):
    recorder = Recorder()
    summary = go(job(tmp_path), recorder)
    assert recorder.seen == [
        ("started", 0),
        ("shard", 0),
        ("shard", 1),
        ("shard", 2),
        ("finished", 10),
    ]
    assert (summary.points, summary.computed, summary.nonfinite, summary.failed) == (10, 10, 0, 0)
    with open_results(summary.path) as results:
        expected = torch.func.vmap(torch.func.hessian(quartic))(POINTS)
        assert np.allclose(results.hessian[:], expected.numpy(), rtol=1e-13)
        assert np.array_equal(results.x[:], POINTS.numpy())
        assert json.loads(results.certificate["reference_error"])["hessian"] < 1e-12
        assert results.provenance["git_dirty"] in (0, 1)
        assert json.loads(results.provenance["packages_json"])["torch"] == version("torch")
    assert "is not used" not in (summary.path.parent / "pipeline.log").read_text()


def test_the_same_again_has_nothing_to_do(tmp_path):
    first, recorder = go(job(tmp_path)), Recorder()
    again = go(job(tmp_path), recorder)
    assert again.computed == 0
    assert again.path == first.path
    assert recorder.seen == []


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, after, caplog):
    undisturbed = go(job(tmp_path / "one"))
    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING):
        go(job(tmp_path / "two"), Stop(after))
    safe = len(list(tmp_path.glob("two/**/shard-*.h5")))
    assert safe >= after
    assert f"interrupted: {safe} of 3 shards are safe" in caplog.text
    recorder = Recorder()
    resumed = go(job(tmp_path / "two"), recorder)
    assert recorder.seen[0] == ("started", min(4 * safe, 10))
    assert resumed.computed == max(10 - 4 * safe, 0)
    assert resumed.path.parent.name == undisturbed.path.parent.name
    with open_results(undisturbed.path) as one, open_results(resumed.path) as two:
        for name in one.names:
            assert np.array_equal(one[name][:], two[name][:])
    assert not list(resumed.path.parent.rglob("*.tmp"))


def test_an_interruption_while_a_run_is_planned_has_computed_nothing(tmp_path, caplog):
    def stopped(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(job(tmp_path), function=bound(stopped))
    assert "interrupted while the run was planned; nothing has been computed" in caplog.text


def test_a_result_that_has_lost_a_shard_is_completed_again(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("pipeline.store.writing.assembly.SMALL", 0)
    place = go(job(tmp_path)).path.parent
    (place / "shards" / "shard-00001.h5").unlink()
    assert go(job(tmp_path)).computed == 4
    assert ": what is missing is computed again" in caplog.text


def test_what_determines_the_numbers_names_the_run(tmp_path):
    base = go(job(tmp_path)).path
    assert go(job(tmp_path), function=bound(digest="edited source")).path != base
    assert go(job(tmp_path), points=POINTS + 1).path != base
    assert go(job(tmp_path, options={"dtype": "float32"})).path != base
    assert go(dataclasses.replace(job(tmp_path), operators=("value",))).path != base


def test_how_it_is_computed_does_not(tmp_path):
    paths = [
        go(job(tmp_path / name, options=options)).path.relative_to(tmp_path / name)
        for name, options in (("a", {}), ("b", {"route": "loop"}), ("c", {"batch": 3, "chunk": 1}))
    ]
    assert len(set(paths)) == 1


def test_a_run_keeps_its_route(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        go(job(tmp_path, options={"route": "loop"}), Stop(1))
    with pytest.raises(StoreError, match="was begun with route=loop and keeps it, got route=vmap"):
        go(job(tmp_path, options={"route": "vmap"}))
    with pytest.raises(
        StoreError, match="with mode=rev_over_rev and keeps it, got mode=fwd_over_rev"
    ):
        go(job(tmp_path, options={"mode": "fwd_over_rev"}))
    summary = go(job(tmp_path))
    with open_results(summary.path) as results:
        assert results.certificate["route"] == "loop"


def test_points_that_fail_are_flagged_and_reported(tmp_path):
    def fussy(x):
        if x[0] > 0.5:
            raise ValueError("too far")
        return x[0].log() + x[1]

    recorder = Recorder()
    summary = go(job(tmp_path), recorder, function=bound(fussy))
    assert (summary.nonfinite, summary.failed) == (5, 2)
    assert [entry for entry in recorder.seen if entry[0] == "failed"] == [
        ("failed", 8, "ValueError: too far"), ("failed", 9, "ValueError: too far"),
    ]  # fmt: skip
    with open_results(summary.path) as results:
        assert results.status[:].tolist() == [2] * 5 + [1] * 3 + [3] * 2
        assert np.isnan(results.hessian[8]).all()
        assert len(results) == 10
    with h5py.File(summary.path.parent / "shards" / "shard-00002.h5") as file:
        assert json.loads(file["provenance/failures_json"][()])["8"] == "ValueError: too far"
        said = json.loads(file["provenance/account_json"][()])  # the same once more, as one text
        for group, entries in said.items():
            assert entries == {name: read_group(file, group)[name] for name in entries}
        assert set(said["certificate"]) == {"rows_checked", "rows_error", "disagreements"}
    with h5py.File(summary.path) as file:
        assert "account_json" not in file["provenance"]


class Broken:
    """An observer that raises."""

    @hookimpl
    def pipeline_shard_finished(self, run, shard):
        raise RuntimeError("broken observer")


def test_an_observer_that_raises_is_logged_and_disturbs_nobody(tmp_path, caplog):
    recorder = Recorder()
    assert go(job(tmp_path), Broken(), recorder).computed == 10
    assert "broken observer" in caplog.text
    assert ("shard", 2) in recorder.seen


def test_a_foreign_result_is_in_the_way(tmp_path):
    path = go(job(tmp_path)).path
    (path.parent / "run.json").unlink()
    with pytest.raises(StoreError, match="result.h5 is in the way: it has no run.json"):
        go(job(tmp_path))


def test_a_plan_of_another_run_is_in_the_way(tmp_path):
    path = go(job(tmp_path)).path
    path.unlink()
    plan = path.parent / "run.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "run_id": "ffff"}))
    with pytest.raises(StoreError, match="got the plan of run ffff"):
        go(job(tmp_path))
    plan.write_text(json.dumps({"schema": json.loads(plan.read_text())["schema"]}))
    with pytest.raises(StoreError, match="no complete plan"):
        go(job(tmp_path))


def test_a_mode_that_does_not_fit(tmp_path):
    with pytest.raises(ConfigurationError, match="mode 'fwd' does not fit order 2"):
        go(job(tmp_path, options={"mode": "fwd"}))


def test_two_processes_that_begin_together_agree_on_one_plan(tmp_path):
    """The second one finds the plan of the first when it comes to write its own."""
    first = go(job(tmp_path, options={"batch": 2}))
    first.path.unlink()
    for shard in (first.path.parent / "shards").iterdir():
        shard.unlink()
    second = go(job(tmp_path, options={"batch": 4}))
    assert json.loads((second.path.parent / "run.json").read_text())["batch"] == 2


def test_settings_that_a_resume_does_not_use_are_said(tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        go(job(tmp_path), Stop(1))
    go(dataclasses.replace(job(tmp_path, options={"batch": 3}), shard_rows=5))
    assert "was begun with shard_rows=4 and keeps it; shard_rows=5 is not used" in caplog.text
    assert "batch=3 is not used" in caplog.text


def test_a_route_that_has_gone_since_the_run_began(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        go(job(tmp_path, options={"route": "vmap"}), Stop(1))

    def gone(*_):
        raise RefusedError("no compiler is here any more")

    monkeypatch.setattr(VmapRoute, "cost", gone)
    expected = (
        r"was begun with route vmap rev_over_rev and keeps it.*(?s:.)*no compiler is here any more"
    )
    with pytest.raises(DisagreementError, match=expected):
        go(job(tmp_path))
    assert not list(tmp_path.rglob("result.h5"))


def test_a_changed_source_is_a_new_run_and_said_so(tmp_path, caplog):
    first = go(job(tmp_path)).path.parent.name
    go(dataclasses.replace(job(tmp_path), operators=("value",)))
    assert "has changed" not in caplog.text
    (tmp_path / "test" / "quartic" / "foreign").mkdir()
    (tmp_path / "test" / "quartic" / "foreign" / "run.json").write_text("no plan")
    second = go(job(tmp_path), function=bound(digest="edited")).path.parent.name
    said = f"function 'quartic', or what it refers to, has changed since run {first}: this is a new run, {second}"
    assert said in caplog.text


def test_provenance_tells_when_a_shard_was_computed(tmp_path):
    with open_results(go(job(tmp_path)).path) as results:
        assert results.provenance["started"] <= results.provenance["finished"]
