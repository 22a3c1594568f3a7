"""Executor `slurm`: an array of Slurm jobs by submitit. Needs the extra `slurm`."""

from __future__ import annotations

import getpass
import json
import logging
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigurationError, ExecutorError
from pipeline.executors.base import Chunk, Executor, Future, Item, Limits, Share, interleaved

if TYPE_CHECKING:
    import submitit

log = logging.getLogger(__name__)
ASK_SECONDS = 3.0  # between questions to Slurm
ANSWER_SECONDS = 60.0  # for which an answer is waited for
ABSENT = 2  # answers in a row without a task that has left no result: then it is lost
LARGEST_ARRAY = 1000
UNITS = {"K": 10, "": 20, "M": 20, "G": 30, "T": 40}


class Queue:
    """The user's tasks that wait or run; asked of Slurm now and then, for all tasks at once.

    By squeue, which works on every cluster, with accounting or without.
    """

    def __init__(self) -> None:
        self._asked, self.answers = -ASK_SECONDS, 0
        self._alive: frozenset[str] = frozenset()

    def holds(self, name: str) -> bool:
        """Whether a task waits or runs, as of the last answer."""
        if time.monotonic() - self._asked >= ASK_SECONDS:
            self._ask()
            self._asked = time.monotonic()  # an answer may take longer than the time between two
        return name in self._alive

    def _ask(self) -> None:
        user = f"--user={getpass.getuser()}"
        answer = _answer("squeue", "--noheader", "--array", "--format=%i", user)
        if answer is not None:  # else nothing is known
            self._alive = frozenset(answer.split())
            self.answers += 1


def _answer(*command: str) -> str | None:
    """What a command of Slurm says; None where there is no Slurm, or its controller is away for a while."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout


class SlurmFuture:
    """One task of an array."""

    def __init__(self, job: submitit.Job[Any], queue: Queue) -> None:
        self._job, self._queue = job, queue
        self._absent: set[int] = set()

    @property
    def name(self) -> str:
        """What Slurm calls it."""
        return str(self._job.job_id)

    def done(self) -> bool:
        """Whether it has left a result, or Slurm has not known it for a while."""
        if self._job.paths.result_pickle.exists():
            return True
        if self._queue.holds(self._job.job_id):
            self._absent.clear()
        elif self._queue.answers:
            self._absent.add(self._queue.answers)
        return len(self._absent) >= ABSENT

    def result(self) -> Any:
        """Give what the task returned, or say why it returned nothing.

        Returns:
            Its value.

        Raises:
            ExecutorError: The task was lost; says its state and where its log is.
        """
        from submitit.core.utils import FailedJobError, UncompletedJobError

        job = self._job
        try:
            if job.paths.result_pickle.exists():
                return job.result()
        except (FailedJobError, UncompletedJobError) as error:
            reason = _last_words(str(error))
        else:
            reason = f"no result; {_state(job.job_id)}"
        raise ExecutorError(f"Slurm job {job.job_id}: {reason}; log: {_nearby(job.paths.stderr)}")


def _nearby(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _last_words(message: str) -> str:
    """What was raised, which submitit quotes between two rules; else the last line of a message."""
    lines = message.strip().splitlines()
    rules = [index for index, line in enumerate(lines) if set(line) == {"-"}]
    return lines[rules[-1] - 1 if len(rules) > 1 else -1].strip()


def _largest_array() -> int:
    """Tasks of an array, which are numbered from 0 on to below what Slurm calls MaxArraySize."""
    answer = _answer("scontrol", "show", "config") or ""
    allowed = re.search(r"^MaxArraySize\s*=\s*([1-9][0-9]*)$", answer, re.MULTILINE)
    return min(LARGEST_ARRAY, int(allowed[1])) if allowed else LARGEST_ARRAY


def _state(name: str) -> str:
    """What Slurm's controller says of a task that has ended; it remembers it for some minutes."""
    answer = _answer("scontrol", "--oneliner", "show", "job", name) or ""
    said = dict(re.findall(r"(JobState|Reason|ExitCode)=(\S+)", answer))
    if not said:
        return "Slurm does not know it any more"
    code, number = map(int, said["ExitCode"].split(":"))
    number = number or max(code - 128, 0)  # as a shell says it
    ending = f"signal {number}" if number else f"exit code {code}"
    return f"{said['JobState']}, {said['Reason']}, {ending}"


class SlurmExecutor(Executor):
    """Chunks as tasks of a Slurm array; they go on when this process dies.

    Args:
        folder: Where submitit keeps its files, and this executor a list of what it started.
        chunks: Tasks in all.
        parameters: Of submitit's `AutoExecutor.update_parameters`.
        options: Of submitit's `AutoExecutor` itself.
        earlier: Folders of executors of earlier processes, whose tasks are to be found again.
    """

    def __init__(
        self,
        folder: Path,
        chunks: int,
        parameters: dict[str, Any],
        options: Mapping[str, Any] = MappingProxyType({}),
        earlier: Sequence[Path] = (),
    ) -> None:
        self._folder, self._chunks, self._earlier = folder, chunks, earlier
        self._parameters, self._options = parameters, options
        self._queue = Queue()
        self._running = False

    @property
    def limits(self) -> Limits:
        """The cores and the memory that are asked of Slurm; half of the memory is for results."""
        memory = _bytes(self._parameters["slurm_additional_parameters"].get("mem"))
        return Limits(self._parameters["cpus_per_task"], memory and memory // 2, elsewhere=True)

    def split(self, shards: Sequence[int]) -> list[Chunk]:
        """As many chunks as was asked for: each starts a process, and keeps it for its shards."""
        return interleaved(shards, self._chunks)

    def shares(self, most: int) -> list[Share]:
        """Everything: a task waits in the queue and starts but once, and plans the run if it is first."""
        workers = min(self._chunks, most)
        return [Share(first, workers) for first in range(workers)]

    def submit(self, work: Callable[[Item], Any], items: Sequence[Item]) -> list[Future]:
        """Submit arrays of as many tasks as the site allows, and a thousand at most.

        Returns:
            Their futures, in the same order.

        Raises:
            ExecutorError: Slurm refuses the array, or there is no Slurm.
        """
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        jobs: list[submitit.Job[Any]] = []
        try:
            executor = submitit.AutoExecutor(
                folder=self._folder / "%j", cluster="slurm", **self._options
            )
            executor.update_parameters(**self._parameters)
            size = _largest_array()
            for first in range(0, len(items), size):
                jobs += executor.map_array(_to_the_end(work), items[first : first + size])
        except (RuntimeError, FailedJobError, FailedSubmissionError) as error:
            raise ExecutorError(
                f"Slurm does not take the job: {error}; check executor.sbatch and the other options "
                "of conf/executor/slurm.yaml"
            ) from error
        self._running = True
        arrays = dict.fromkeys(str(job.job_id).split("_")[0] for job in jobs)
        log.info("submitted to Slurm: %s (tasks: %d)", ", ".join(arrays), len(jobs))
        return [SlurmFuture(job, self._queue) for job in jobs]

    def remember(self, items: Sequence[Any], futures: Sequence[Future]) -> None:
        """Write down which task has what."""
        names = [future.name for future in futures if isinstance(future, SlurmFuture)]
        started = {name: _written(item) for name, item in zip(names, items, strict=True)}
        (self._folder / f"array-{names[0].split('_')[0]}.json").write_text(json.dumps(started))

    def avoid(self, nodes: Sequence[str]) -> None:
        """Exclude them from what is submitted from now on: a node that fails at once takes most."""
        if nodes:
            more = self._parameters["slurm_additional_parameters"]
            excluded = ",".join(dict.fromkeys([*filter(None, [more.get("exclude")]), *nodes]))
            self._parameters["slurm_additional_parameters"] = {**more, "exclude": excluded}

    def recover(self) -> list[tuple[Any, Future]]:
        """Tasks of an earlier process that Slurm still knows as waiting or running."""
        known = [
            found for folder in (*self._earlier, self._folder) for found in self._still(folder)
        ]
        self._running |= bool(known)
        return known

    def _still(self, folder: Path) -> Iterator[tuple[Any, Future]]:
        import submitit

        for file in sorted(folder.glob("array-*.json")):
            for name, item in json.loads(file.read_text()).items():
                if self._queue.holds(name):
                    future = SlurmFuture(submitit.SlurmJob(folder / "%j", name), self._queue)
                    if not future.done():  # Slurm lists it for a while
                        yield _read(item), future

    def cancel(self) -> str:
        """Leave the tasks to Slurm: they need nobody."""
        if not self._running:
            return ""
        return "its Slurm jobs go on; the same command waits for them again, scancel stops them"

    def __enter__(self) -> SlurmExecutor:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _written(item: Any) -> Any:
    return asdict(item) if isinstance(item, Share) else list(item)


def _read(written: Any) -> Any:
    return Share(**written) if isinstance(written, dict) else tuple(written)


def _to_the_end(work: Callable[[Item], Any]) -> Callable[[Item], Any]:
    """Leave the warnings of Slurm to work that submitit can start again."""
    return work if hasattr(work, "checkpoint") else partial(_unwarned, work)


def _unwarned(work: Callable[[Item], Any], item: Item) -> Any:
    # of the warning before a time limit submitit makes an exception, in the middle of a batch
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    return work(item)


def build(
    folder: Path,
    /,
    workers: int = 8,
    chunks: int | None = None,
    timeout_min: int = 60,
    cpus: int = 1,
    sbatch: dict = MappingProxyType({}),  # type: ignore[type-arg, assignment]
) -> SlurmExecutor:
    """Build the executor.

    Args:
        folder: Where submitit keeps its files.
        workers: Most tasks that run at once.
        chunks: Tasks in all; null: as many as run at once.
        timeout_min: Time limit of a task, in minutes.
        cpus: Cores of a task.
        sbatch: Further options of sbatch by name, such as partition, mem, gpus-per-task; null
            leaves one out.

    Returns:
        The executor.

    Raises:
        ConfigurationError: submitit is not installed, or a number is not positive.
    """
    if find_spec("submitit") is None:
        raise ConfigurationError(
            ["executor=slurm needs submitit; pip install 'pipeline-derivatives[slurm]'"]
        )
    counts = {"workers": workers, "chunks": chunks, "timeout_min": timeout_min, "cpus": cpus}
    faults = [
        f"executor.{name}: expected a positive number, got {value}"
        for name, value in counts.items()
        if value is not None and value < 1
    ]
    if faults:
        raise ConfigurationError(faults)
    asked = {"requeue": True, **sbatch}
    given = {name: value for name, value in asked.items() if value is not None}
    parameters = {
        "name": "pipeline",
        "timeout_min": timeout_min,
        "cpus_per_task": cpus,
        "slurm_array_parallelism": workers,
        "slurm_additional_parameters": given,
    }
    return SlurmExecutor(folder, chunks or workers, parameters)


def _bytes(size: Any) -> int | None:
    """Read a size as sbatch does: megabytes unless it says otherwise."""
    match = re.fullmatch(r"([0-9]+)([KMGT]?)B?", str(size).upper())
    return None if match is None else int(match[1]) << UNITS[match[2]]
