"""A Slurm for the tests of this folder; in CI it has to be there."""

import os

import pytest
from cluster.commands import Command
from cluster.lab import NODES, Lab, missing, why_not
from cluster.network import Network


@pytest.fixture(scope="session")
def network_or_reason():
    try:
        return Network.of(NODES)
    except OSError as error:
        return f"no networks can be made here: {error}"


@pytest.fixture
def network(network_or_reason):
    if isinstance(network_or_reason, str):
        missing(network_or_reason)
    return network_or_reason


@pytest.fixture(scope="session")
def slurm(tmp_path_factory, network_or_reason):
    reason = why_not()
    if reason:
        missing(reason)
    place = tmp_path_factory.mktemp("slurm")
    for folder in (place, *place.parents):
        if folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)  # munge wants to see the way to its socket
    network = None if isinstance(network_or_reason, str) else network_or_reason
    lab = Lab(place, network)
    lab.start()
    yield lab
    lab.stop()
    if network:
        network.close()


@pytest.fixture
def distributed(slurm, tmp_path):
    words = ("executor=slurm", "executor.workers=2", "executor.timeout_min=5")
    return Command(tmp_path, slurm.environment, *words, before=slurm.on(0))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    command = Command(
        tmp_path_factory.mktemp("alone"), dict(os.environ), "function_params.seconds=0.0"
    )
    code, said = command.run()
    assert code == 0, said
    return command.result
