"""A run is followed from outside, by what is on disk."""

import threading
import time

import pytest
import torch
from support.stored_runs import LAYOUT, values, write_run

import pipeline
from pipeline.errors import StoreError
from pipeline.results.__main__ import main
from pipeline.results.watching import watch

PLAN = {"shard_rows": 5, "run_id": "0123"}


def test_a_run_is_followed_until_it_is_complete(tmp_path):
    whole = values(LAYOUT, 23)
    write_run(tmp_path / "run", kind="unfinished", drop=(2, 3, 4), plan=PLAN, whole=whole)
    lines = watch(tmp_path / "run", 0.01)
    first = next(lines)
    bad = int((whole["status"][:10] == 2).sum())
    assert first == f"2 of 5 shards, 10 of 23 points (43.5%), {bad} nonfinite"
    rest = threading.Thread(target=finish, args=(tmp_path / "run", whole))
    rest.start()
    seen = list(lines)
    rest.join()
    assert seen[-1].startswith("5 of 5 shards, 23 of 23 points (100.0%)")
    assert seen[-1].endswith(f"{int((whole['status'] == 2).sum())} nonfinite")


def test_of_very_many_shards_only_new_ones_are_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.results.watching.MOST_READ", 1)
    whole = values(LAYOUT, 23)
    write_run(tmp_path, kind="unfinished", drop=(2, 3, 4), plan=PLAN, whole=whole)
    for shard in tmp_path.glob("shards/*.h5"):
        shard.chmod(0)
        shard.write_bytes(b"")  # whoever opens it is told so
    lines = watch(tmp_path, 0.01)
    told = "the status of the first 2 shards is counted at the end of the run"
    assert next(lines) == f"2 of 5 shards, 10 of 23 points (43.5%), {told}"
    write_run(tmp_path, kind="unfinished", drop=(0, 1, 4), plan=PLAN, whole=whole)
    bad = int((whole["status"][10:20] == 2).sum())
    assert next(lines).endswith(f"{bad} nonfinite, {told}")


def test_the_command_ends_with_the_account_of_the_run(tmp_path, capsys):
    points = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(10, 3)
    stored = pipeline.run(
        lambda x: (x**3).sum(), points, "gradient", output_dir=tmp_path, shard_rows=4
    )
    assert main(["show", "--watch", str(stored.path.parent)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 of 3 shards, 10 of 10 points (100.0%)\n")
    assert "evidence" in said


def finish(path, whole):
    time.sleep(0.2)
    write_run(path, kind="virtual", plan=PLAN, whole=whole)


def test_the_rate_and_the_end_are_said(tmp_path):
    whole = values(LAYOUT, 23)
    write_run(tmp_path, kind="unfinished", drop=(2, 3, 4), plan=PLAN, whole=whole)
    lines = watch(tmp_path, 0.01)
    next(lines)
    write_run(tmp_path, kind="unfinished", drop=(0, 1, 4), plan=PLAN, whole=whole)
    assert "points/s, ends about 20" in next(lines)


def test_a_run_that_is_being_planned_is_waited_for(tmp_path):
    (tmp_path / "shards").mkdir()
    lines = watch(tmp_path, 0.01)
    assert next(lines) == "being planned: nothing is computed yet"
    write_run(tmp_path, kind="unfinished", drop=(2, 3, 4), plan=PLAN, whole=values(LAYOUT, 23))
    assert next(lines).startswith("2 of 5 shards")


def test_what_is_no_run_cannot_be_followed(tmp_path):
    with pytest.raises(StoreError, match=r"expected the directory of a run that has begun"):
        next(watch(tmp_path, 1.0))
