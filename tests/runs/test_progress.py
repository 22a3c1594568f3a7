"""What is said while a run goes on and at its end."""

import io
import logging
import re
import sys
from pathlib import Path

import pytest
import torch

import pipeline
from pipeline.job import Summary
from pipeline.runs.progress import MOST_FAILURES, Progress, describe


def summary(**counts):
    none = {"nonfinite": 0, "nonsmooth": 0, "failed": 0}
    return Summary(path=Path("r.h5"), points=9, computed=9, seconds=1.0, bytes=100, **none | counts)


@pytest.mark.parametrize(
    ("counts", "said", "unsaid"),
    [
        ({}, ["every derivative is finite"], ["status", "more:"]),
        (
            {"nonfinite": 1},
            ["not finite at 1 point (status 2)", "more:"],
            ["every", "raised", "kink"],
        ),
        (
            {"failed": 2},
            ["the function raised at 2 points (status 3)"],
            ["every", "not finite", "kink"],
        ),
        (
            {"nonsmooth": 3},
            ["every derivative is finite", "at 3 points, where torch gives one of"],
            ["raised"],
        ),
    ],
)
def test_the_end_names_what_is_there_and_nothing_else(counts, said, unsaid):
    text = describe(summary(**counts))
    assert all(words in text for words in said), text
    assert not any(words in text for words in unsaid), text
    assert text.splitlines()[-1].startswith("result: r.h5")


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Cell(io.StringIO):
    """Standard error of a notebook, which is no terminal."""

    __module__ = "ipykernel.iostream"


def sometimes(x):
    if x[0] > 2:
        raise ValueError("too far")
    return x.square().sum()


@pytest.mark.parametrize("stream", [Terminal, Cell])
def test_a_bar_where_somebody_looks(stream, tmp_path, monkeypatch):
    points = torch.ones(6, 2, dtype=torch.float64)
    for index, progress in enumerate((True, False)):
        monkeypatch.setattr("sys.stderr", stream())
        pipeline.run(
            sometimes, points, "gradient", output_dir=tmp_path / str(index), progress=progress
        ).close()
        assert ("6.00/6.00" in sys.stderr.getvalue()) == progress
    monkeypatch.setattr("sys.stderr", io.StringIO())
    pipeline.run(sometimes, points, "gradient", output_dir=tmp_path / "file").close()
    assert not sys.stderr.getvalue()


def test_warnings_are_seen_where_nobody_has_set_up_logging(tmp_path, monkeypatch, capsys):
    log = logging.getLogger("pipeline")
    monkeypatch.setattr(log, "propagate", False)  # from what pytest sets up
    points = torch.tensor([[1.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    with pipeline.run(sometimes, points, "gradient", output_dir=tmp_path) as results:
        assert results.status[:].tolist() == [1, 3]
        assert "point 1 failed" in (results.path.parent / "pipeline.log").read_text()
    assert "point 1 failed: ValueError: too far" in capsys.readouterr().err
    assert not log.handlers


def test_a_log_says_how_far_and_when_it_ends_and_at_the_end_no_more(caplog, tmp_path):
    points = torch.ones(3, 2, dtype=torch.float64)
    with caplog.at_level(logging.INFO, "pipeline"):
        pipeline.run("rosenbrock", points, "gradient", output_dir=tmp_path, shard_rows=2).close()
        pipeline.run("rosenbrock", points[:1], "gradient", output_dir=tmp_path)
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert re.search(
        r"shard 1 of 2: 2 points durable, [\d,.]+ points/s, .* s left, ends about \d\d:\d\d, memory \d",
        said,
    )
    assert re.search(r"shard 2 of 2: 3 points durable, [\d,.]+ points/s, memory \d", said)
    assert "gradient of rosenbrock at 1 point: 1 shard" in said
    assert "shard 1 of 1: 1 point durable, " in said


def test_a_million_failures_are_not_a_million_lines(caplog):
    progress = Progress()
    with caplog.at_level(logging.WARNING, "pipeline"):
        for index in range(1000):
            progress.pipeline_point_failed(None, index, "ValueError: bad")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "point 0 failed: ValueError: bad"
    assert len(lines) == MOST_FAILURES + 1
    assert "further points that fail are not logged" in lines[-1]
