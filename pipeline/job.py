"""Frozen records of one execution: what is asked, what is seen, what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import ConfigurationError
from pipeline.functions.parameters import bind, parameters_of

if TYPE_CHECKING:
    from pipeline.autograd.pattern import Pattern

Compression = Literal["none", "gzip", "zstd"]
Format = Literal["auto", "dense", "sparse"]
Symmetric = Literal["full", "packed"]

SWEEP_TABLE = "sweep.csv"  # in the folder of a sweep: its jobs and what became of them


@dataclass(frozen=True)
class Options:
    """How derivatives are evaluated; none of it changes what is asked.

    Attributes:
        dtype: Precision of points and derivatives: float64 or float32; float16 and bfloat16 are stored as
            float32.
        device: cpu, cuda, cuda:<index> or auto.
        route: auto, or one of the routes.
        mode: auto, or e.g. fwd, rev, fwd_over_rev: outermost first, as long as the order.
        batch: Points evaluated in one call; None lets the planner choose.
        chunk: Directions evaluated together; None lets the planner choose.
        memory: Bytes that an evaluation may hold; None takes half of what is free.
        on_disagreement: error or warn, when derivatives disagree with an oracle.
        on_point_error: flag or stop, when the function raises at a point.
        finite_differences: Whether differences of values are taken where automatic differentiation
            cannot be used.
    """

    dtype: str = "float64"
    device: str = "auto"
    route: str = "auto"
    mode: str = "auto"
    batch: int | None = None
    chunk: int | None = None
    memory: int | None = None
    on_disagreement: str = "error"
    on_point_error: str = "flag"
    finite_differences: bool = False


@dataclass(frozen=True)
class Workers:
    """Which engine computes the shards of one job.

    Attributes:
        name: none, for this process alone, or one of `pipeline.executors.ENGINES`.
        retries: How often shards of lost workers are given out again.
        options: Options of the engine.
    """

    name: str = "none"
    retries: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """How results lie on disk; none of it changes a number.

    A run keeps what it was begun with, whatever is asked for later; only `symmetric` and
    `format` make another run, since they decide which numbers are there.

    Attributes:
        compression: none, or a filter of HDF5.
        level: Of the compression; None for its own default.
        symmetric: full, or packed: derivatives of order 2 and more without their repetitions.
        format: dense, sparse (of the highest derivative, only entries that can be other than zero),
            or auto: sparse where that is much smaller.
    """

    compression: Compression = "none"
    level: int | None = None
    symmetric: Symmetric = "full"
    format: Format = "auto"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Storage:
        """Check what a user has given.

        Args:
            given: Fields of this record.

        Returns:
            The record.

        Raises:
            ConfigurationError: A name is unknown or a value cannot be used; lists every fault.
        """
        values, faults = bind(parameters_of(cls, "store"), given, "store")
        if faults:
            raise ConfigurationError(faults)
        return cls(**values)

    def __str__(self) -> str:
        return f"{{{', '.join(f'{name}: {value}' for name, value in asdict(self).items())}}}"


@dataclass(frozen=True)
class Job:
    """One job as the user asked for it: names and values, nothing resolved yet.

    Attributes:
        name: Name of the job, the first folder of its results.
        operators: Names of the operators, e.g. ("value", "hessian").
        order: Order of the operator `derivative`.
        function: Name of the function.
        parameters: Parameters of the function that the user gave.
        wrt: What is differentiated: None or inputs for the whole point, some of its columns by index
            or name, parameters for all parameters of a module, or some of these by name.
        outputs: Which outputs of a vector function are kept, by index or name; None for all.
        masses: One for each variable, or for each group of as many: the eigenvalues are then those of
            M^-1/2 H M^-1/2.
        pattern: Entries of a sparse result that can be other than zero; None for these to be found.
        grid: Name of the kind of grid.
        grid_options: Options of the grid that the user gave.
        directions: What jvp, vjp and hvp are taken along: the name of a kind of grid, and its
            options; nothing for none.
        plugins: The user's own plugin files.
        options: How to evaluate.
        seed: Seed of everything random.
        output_dir: Where results go.
        shard_rows: Points per shard; None lets the planner choose.
        executor: Who computes.
        storage: How the results lie on disk.
        dry_run: Only say how the job would be done, how long it takes, and why so.
        config: The configuration that the job came from, file name -> text, for provenance.
    """

    name: str
    operators: tuple[str, ...]
    order: int | None = None
    function: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wrt: str | int | tuple[str | int, ...] | None = None
    outputs: str | int | tuple[str | int, ...] | None = None
    masses: tuple[float, ...] = ()
    pattern: Pattern | None = None
    grid: str = ""
    grid_options: Mapping[str, Any] = field(default_factory=dict)
    directions: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    options: Options = Options()
    seed: int = 0
    output_dir: Path = Path("outputs")
    shard_rows: int | None = None
    executor: Workers = Workers()
    storage: Storage = Storage()
    dry_run: bool = False
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunInfo:
    """A run as observers see it.

    Attributes:
        run_id: Digest of everything that determines the numbers.
        directory: The run directory.
        function: Name of the function.
        operators: Names of the datasets.
        points: N.
        points_done: Points that were durable when this execution began.
        shards: Number of shards.
        route: Route in use, with its mode.
        batch: Points per call.
    """

    run_id: str
    directory: Path
    function: str
    operators: tuple[str, ...]
    points: int
    points_done: int
    shards: int
    route: str
    batch: int


@dataclass(frozen=True)
class ShardInfo:
    """A shard that is durable on disk: points start … stop - 1."""

    index: int
    start: int
    stop: int
    path: Path
    seconds: float


@dataclass(frozen=True)
class Summary:
    """What a finished run has to say.

    Attributes:
        path: The result file.
        points: N.
        computed: Points evaluated by this execution; 0 when everything was there.
        nonfinite: Points of the whole result whose derivatives are not all finite.
        nonsmooth: Points that lie exactly on a kink of the function.
        failed: Points of the whole result where the function raised.
        seconds: Wall time of this execution.
        bytes: Size of the result on disk.
    """

    path: Path
    points: int
    computed: int
    nonfinite: int
    nonsmooth: int
    failed: int
    seconds: float
    bytes: int

    @property
    def value(self) -> float:
        """What a sweeper may minimise: points whose derivatives are not all finite."""
        return float(self.nonfinite + self.failed)
