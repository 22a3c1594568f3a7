"""A Slurm for the tests of this folder; in CI it has to be there."""

import os

import pytest
from cluster.commands import Command
from cluster.lab import Lab, missing, why_not


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    reason = why_not()
    if reason:
        missing(reason)
    place = tmp_path_factory.mktemp("slurm")
    for folder in (place, *place.parents):
        if folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)  # munge wants to see the way to its socket
    lab = Lab(place)
    lab.start()
    yield lab
    lab.stop()


@pytest.fixture
def distributed(slurm, tmp_path):
    words = ("executor=slurm", "executor.workers=3", "executor.timeout_min=5")
    return Command(tmp_path, slurm.environment, *words)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    command = Command(
        tmp_path_factory.mktemp("alone"), dict(os.environ), "function_params.seconds=0.0"
    )
    code, said = command.run()
    assert code == 0, said
    return command.result
