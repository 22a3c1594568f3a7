"""The command line: Hydra, wiring only."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.complaints import remark, spell
from pipeline.errors import PipelineError, StoreError
from pipeline.settings import CONF, register_schema, require_single_options, to_job
from pipeline.sweeps.table import CURRENT

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pipeline.functions.bound import BoundFunction
    from pipeline.grids.base import Grid
    from pipeline.job import Job

STOPPED: list[PipelineError | OmegaConfBaseException] = []


class Terminated(KeyboardInterrupt):
    """SIGTERM came: stop as for Ctrl-C."""


def execute(cfg: DictConfig) -> float:
    """Run one composed job and print what came out.

    Args:
        cfg: Composed from conf/, by ``python -m pipeline`` or, after `pipeline.settings.register_configs`,
            by any other application of Hydra.

    Returns:
        Number of points whose derivatives are not finite: what a sweeper may minimise; NaN where
        the job was only planned.
    """
    require_single_options(HydraConfig.get().overrides.task)
    job = to_job(cfg, _configuration_texts(cfg))
    # torch is imported here, so that --help and --cfg answer at once
    from pipeline.registry import build_registry
    from pipeline.runner import run
    from pipeline.runs.binding import bind_job
    from pipeline.runs.progress import Progress, describe

    registry = build_registry(job.plugins, own={"progress": Progress()})
    function, grid = bind_job(job, registry)
    if job.dry_run:
        _foretell(job, function, grid)
        return float("nan")
    with _terminable():
        summary = run(job, function, grid, registry.hook)
    print(describe(summary), flush=True)
    return summary.value


def task(cfg: DictConfig) -> float:
    """Run one composed job for Hydra.

    Args:
        cfg: Composed from conf/.

    Returns:
        As `execute`.

    Raises:
        PipelineError: The job failed, as Hydra's callbacks are told; a sweep goes on.
        OmegaConfBaseException: Likewise, of a value that refers to nothing.
    """
    try:
        return execute(cfg)
    except (PipelineError, OmegaConfBaseException) as error:
        if HydraConfig.get().mode == RunMode.RUN:
            STOPPED.append(
                error
            )  # `main` says it: `pipeline.sweeps.launch.Hush` keeps Hydra from it
        raise


def _foretell(job: Job, function: BoundFunction, grid: Grid) -> None:
    from pipeline.runs.forecast import forecast

    outcome = forecast(job, function, grid)
    print(outcome.describe(), flush=True)
    outcome.require_room()


def main() -> None:
    """Compose the configuration, run the job, and turn errors into one clear message."""
    register_schema()
    traced = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and the message is ours
    try:
        with _terminable(), _told_of_sweeps():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
        if STOPPED:
            raise STOPPED[0]
    except KeyboardInterrupt as stop:
        sys.exit(143 if isinstance(stop, Terminated) else 130)
    except SystemExit as stop:  # of Hydra's own parser
        if stop.code == 2 and remark(sys.argv[1:]):
            print(remark(sys.argv[1:]), file=sys.stderr)
        raise
    except BrokenPipeError:  # whoever was reading, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (PipelineError, HydraException, OmegaConfBaseException) as error:
        _fail(error, spell(error, sys.argv[1:]), traced)
    if any(sweep.bad for sweep in CURRENT.values()):
        sys.exit(1)


@contextmanager
def _told_of_sweeps() -> Iterator[None]:
    """Say at the end, whatever that is, what has become of the jobs of a sweep."""
    try:
        yield
    except OSError as error:  # of Hydra, which makes the folder of a sweep
        if error.filename is None:
            raise
        raise StoreError(
            f"{error.filename}: {error.strerror}; choose another output_dir="
        ) from error
    finally:
        for sweep in CURRENT.values():
            print(sweep.describe(), flush=True)


def _fail(error: BaseException, message: str, traced: bool) -> NoReturn:
    if traced:
        traceback.print_exception(error)
    hint = "" if traced else "\n(set HYDRA_FULL_ERROR=1 to see the traceback)"
    print(f"error: {message}{hint}", file=sys.stderr, flush=True)
    sys.exit(1)


def _configuration_texts(cfg: DictConfig) -> dict[str, str]:
    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    own = hydra_config.job.name == "pipeline"
    program = ["python", "-m", "pipeline"] if own else [sys.argv[0]]
    return {
        "config.yaml": OmegaConf.to_yaml(cfg),
        "overrides.yaml": OmegaConf.to_yaml(overrides),
        "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra_config})),
        "command": shlex.join([*program, *overrides]),
    }


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM stop a run or a sweep like Ctrl-C does, with finished shards kept.

    Where a launcher handles it already, that stays: submitit is about to have the job requeued.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
