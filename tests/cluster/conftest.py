"""A Slurm for the tests of this folder; in CI it has to be there."""

import os

import pytest
from cluster.lab import Lab, why_not


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    reason = why_not()
    if reason and os.environ.get("CI"):
        pytest.fail(f"CI has to run these tests: {reason}")
    if reason:
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("slurm")
    for folder in (place, *place.parents):
        if folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)  # munge wants to see the way to its socket
    lab = Lab(place)
    lab.start()
    yield lab
    lab.stop()
