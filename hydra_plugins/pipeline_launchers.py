"""The launchers of `pipeline.sweeps.launch` where Hydra looks for them: it knows this package alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from pipeline.errors import ConfigurationError
from pipeline.sweeps import launch

if TYPE_CHECKING:
    from pipeline.executors.base import Executor

try:
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as _Stock
except ImportError:  # without the extra `slurm`
    _Stock = None


class EverySweeper(BasicSweeper):
    """Every combination of the values that are given, as by Hydra's own sweeper."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Leave it to the launcher, which composes all jobs before the first one starts."""


class InOrderLauncher(launch.InOrderLauncher):
    """One job after the other, in this process."""


class LocalLauncher(launch.ProcessesLauncher):
    """Processes of this machine, one per GPU or per group of cores.

    Args:
        workers: How many at once; None takes one per visible GPU, else one per two cores.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

    def executor(self) -> Executor:
        """Start them when they are needed."""
        from pipeline.executors.local import build

        return build(Path(), workers=self._workers)


class SlurmLauncher(launch.ProcessesLauncher, _Stock or Launcher):  # type: ignore[misc]
    """Arrays of Slurm jobs: hydra-submitit-launcher's, with all of its parameters.

    Its own `launch` ends the sweep when a job is lost; here that is a row of the table.

    Args:
        jobs_per_task: Jobs of the sweep that one Slurm job runs, one after the other.
        params: Those of hydra-submitit-launcher.

    Raises:
        ConfigurationError: It is not installed, or a number is not positive.
    """

    def __init__(self, jobs_per_task: int = 1, **params: Any) -> None:
        if _Stock is None:
            raise ConfigurationError(
                ["hydra/launcher=slurm needs submitit; pip install 'pipeline-derivatives[slurm]'"]
            )
        if jobs_per_task < 1:
            raise ConfigurationError(
                [f"hydra.launcher.jobs_per_task: expected a positive number, got {jobs_per_task}"]
            )
        super().__init__(**params)
        self.jobs_per_task = jobs_per_task
        if params.get("max_num_timeout"):
            self.call = launch.RestartableCall

    def executor(self) -> Executor:
        """Submit by submitit, and watch by squeue."""
        from pipeline.executors.slurm import SlurmExecutor

        given = {name: value for name, value in self.params.items() if value is not None}
        folder = Path(given.pop("submitit_folder"))
        options = {"slurm_max_num_timeout": given.pop("max_num_timeout", 0)}
        general = OmegaConf.structured(BaseQueueConf).keys()
        named = {name if name in general else f"slurm_{name}": given[name] for name in given}
        return SlurmExecutor(folder, 1, named, options, self._earlier(folder))

    def _earlier(self, folder: Path) -> list[Path]:
        """The folders of earlier sweeps beside this one: what they have submitted may still run."""
        sweep = Path(self.config.hydra.sweep.dir)
        if not folder.is_relative_to(sweep):
            return []
        beside = sweep.parent.glob(f"*/{folder.relative_to(sweep)}")
        # what is taken from there is unpickled: it has to be the user's own
        return [
            place
            for place in sorted(beside)
            if place != folder and place.stat().st_uid == os.getuid()
        ]
