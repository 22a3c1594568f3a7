"""kill -9 at random moments, over many resumes, with several workers at the same shards."""

import subprocess
import sys
from pathlib import Path

import pytest

STORM = Path(__file__).with_name("storm.py")


@pytest.mark.parametrize(("seed", "kills"), [(0, 3), pytest.param(1, 200, marks=pytest.mark.slow)])
@pytest.mark.timeout(400)
def test_nothing_reported_is_ever_lost(tmp_path, seed, kills):
    done = subprocess.run(
        [sys.executable, str(STORM), str(tmp_path), str(seed), str(kills)],
        capture_output=True, text=True, check=False, timeout=390,
    )  # fmt: skip
    print(done.stdout)
    workers = "".join(file.read_text() for file in tmp_path.rglob("worker-*.txt"))
    assert done.returncode == 0, f"seed {seed}\n{done.stderr}\n{workers[-3000:]}"
    assert "nothing that was reported was lost" in done.stdout
