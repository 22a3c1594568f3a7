"""Everything is computed on the device of the points: by a device of pretence, which no GPU is needed for."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def outcomes():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "support.on_pretended_device"],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_nothing_is_left_on_the_cpu(outcomes):
    faults = {each["case"]: each["fault"] for each in outcomes if each["fault"]}
    assert not faults, "\n\n".join(f"{case}\n{fault}" for case, fault in faults.items())
    assert len(outcomes) > 40


@pytest.mark.slow
def test_the_device_would_tell():
    """What mixes devices fails on the device of pretence."""
    program = (
        "import torch\nfrom support.pretended import DEVICE, Pretended\n"
        "with Pretended():\n    torch.ones(3).to(DEVICE) * 2 + torch.ones(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "tests", capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "of gpu:0 and of the CPU in one call of aten.add" in done.stderr
