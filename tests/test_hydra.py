"""What Hydra's users expect: other applications compose ours, search paths, callbacks, quiet logging."""

import os
import subprocess
import sys

import h5py
import pytest

APPLICATION = """
import hydra
from pipeline.cli import execute
from pipeline.settings import register_configs

register_configs()


@hydra.main(version_base="1.3", config_path=".", config_name="application")
def main(cfg):
    print("points that are not finite:", execute(cfg.derivatives), cfg.mine)


main()
"""
CONFIGURATION = """
defaults:
  - pipeline/config@derivatives
  - override pipeline/grid@derivatives.grid: random
  - _self_

mine: 3
derivatives:
  function: ackley
  output_dir: elsewhere
  grid:
    count: 12
"""
CALLBACK = """
from hydra.experimental.callback import Callback


class Tell(Callback):
    def __init__(self, word):
        self.word = word

    def on_job_end(self, config, job_return, **keywords):
        print(self.word, config.function, job_return.status.name, repr(job_return._return_value))

    def on_run_end(self, config, job_return, **keywords):
        print("run", job_return.status.name)
"""


def run(folder, *words, warnings="ignore"):
    environment = {**os.environ, "PYTHONWARNINGS": warnings}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )


@pytest.mark.slow
def test_another_application_composes_a_job(tmp_path):
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "application.yaml").write_text(CONFIGURATION)
    done = run(
        tmp_path, "application.py", "pipeline/job@derivatives.job=gradient", "derivatives.grid.n=3"
    )
    assert done.returncode == 0, done.stderr
    assert "points that are not finite: 0.0 3" in done.stdout
    (path,) = tmp_path.glob("elsewhere/gradient/ackley/*/result.h5")
    with h5py.File(path) as file:
        assert file["gradient"].shape == (12, 3)
        assert "application.py pipeline/job@derivatives.job=gradient" in file.attrs["history"]


@pytest.mark.slow
def test_a_directory_of_the_user_is_searched(cli, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /job: gradient\nfunction: beale\ngrid: {count: 3}\n"
    (tmp_path / "mine" / "experiment" / "small.yaml").write_text(text)
    done = cli(f"hydra.searchpath=[file://{tmp_path}/mine]", "experiment=small")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/gradient/beale/*/result.h5"))


@pytest.mark.slow
def test_callbacks_of_hydra_are_called(cli, tmp_path):
    (tmp_path / "telling.py").write_text(CALLBACK)
    words = ("+hydra.callbacks.tell._target_=telling.Tell", "+hydra.callbacks.tell.word=ended")
    done = cli(*words, "function=beale", "grid.count=3")
    assert done.returncode == 0, done.stderr
    assert "ended beale COMPLETED 0.0\nrun COMPLETED" in done.stdout
    failed = cli(*words, "function=beal")
    assert failed.returncode == 1
    assert "ended beal FAILED ConfigurationError(" in failed.stdout
    assert "run FAILED" in failed.stdout
    assert failed.stderr.count("\n") == 2, "the message, and how to see the traceback"
    assert failed.stderr.startswith("error: function 'beal' is unknown")
    swept = cli("-m", *words, "function=beale,beal", "grid.count=3")
    assert swept.returncode == 1
    assert "ended beal FAILED ConfigurationError(" in swept.stdout
    assert "1 complete already, 1 failed" in swept.stdout


def test_importing_changes_no_logging_and_evaluating_says_nothing(tmp_path):
    code = (
        "import logging, pipeline, torch\n"
        "before = logging.getLogger().handlers[:]\n"
        "pipeline.evaluate('rosenbrock', torch.rand(5, 2).double(), 'hessian')\n"
        "pipeline.run('rosenbrock', torch.rand(5, 2).double(), 'hessian')\n"
        "i = torch.tensor([[[0, 1], [0, 1]]])\n"
        "spread = lambda x: torch.nn.functional.max_unpool1d(x.reshape(1, 2, 2), i, 2)\n"
        "f = lambda x: spread(x).sum() * x.sum()\n"  # torch says how slow it is without a batching rule
        "pipeline.evaluate(f, torch.rand(5, 4).double(), 'gradient')\n"
        "assert logging.getLogger().handlers == before == []\n"
        "assert not [h for h in logging.getLogger('pipeline').handlers if type(h) is not logging.NullHandler]\n"
    )
    done = run(tmp_path, "-c", code, warnings="")
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert not done.stderr


@pytest.mark.parametrize("line", ["pipeline job=he", "pipeline grid=so", "pipeline function_pa"])
def test_tab_completes(cli, line):
    words = cli("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line))).stdout
    assert line.split()[1] in words
