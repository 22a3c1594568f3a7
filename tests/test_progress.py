"""What is said while a run goes on and at its end."""

import logging
from pathlib import Path

import pytest

from pipeline.job import Summary
from pipeline.progress import MOST_FAILURES, Progress, describe


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


def test_a_million_failures_are_not_a_million_lines(caplog):
    progress = Progress()
    with caplog.at_level(logging.WARNING, "pipeline"):
        for index in range(1000):
            progress.pipeline_point_failed(None, index, "ValueError: bad")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "point 0 failed: ValueError: bad"
    assert len(lines) == MOST_FAILURES + 1
    assert "further points that fail are not logged" in lines[-1]
