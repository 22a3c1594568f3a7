"""The border where configuration ends: Hydra schema in, frozen Job out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from pipeline.errors import ConfigurationError
from pipeline.job import Job, Options, Storage, Workers

CONF = Path(__file__).resolve().parent.parent / "conf"
GROUPS = ("job", "grid", "directions", "device", "executor")
UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


@dataclass
class Schema:
    """What conf/config.yaml may hold; the meaning of each key stands there and in `pipeline.job`."""

    job: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    directions: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    executor: dict[str, Any] = field(default_factory=dict)
    store: dict[str, Any] = field(default_factory=dict)
    function: str = MISSING
    function_params: dict[str, Any] = field(default_factory=dict)
    wrt: Any = None
    outputs: Any = None
    masses: list[float] = field(default_factory=list)
    pattern: str | None = None
    plugins: list[str] = field(default_factory=list)
    order: int | None = None
    dtype: str = "float64"
    seed: int = 0
    route: str = "auto"
    mode: str = "auto"
    batch: int | None = None
    chunk: int | None = None
    memory: str | None = None
    shard_rows: int | None = None
    output_dir: str = "outputs"
    on_disagreement: str = "error"
    on_point_error: str = "flag"
    finite_differences: bool = False
    dry_run: bool = False
    explain: bool = False


def register_schema(group: str | None = None) -> None:
    """Make the schema known to Hydra, with ``function_params`` open for any name.

    Args:
        group: Config group that it is stored in, under the name ``schema``.
    """
    node = OmegaConf.structured(Schema)
    OmegaConf.set_struct(node.function_params, False)
    ConfigStore.instance().store("schema", node, group=group)


def register_configs() -> None:
    """Make ``pipeline/config`` and its groups known to Hydra, for the defaults list of any application.

    An application that calls this writes ``- pipeline/config@derivatives`` in its defaults, gives
    ``cfg.derivatives`` to `pipeline.cli.execute`, and takes ``pipeline/job@derivatives.job=gradient``
    on its command line.
    """
    register_schema("pipeline")
    store = ConfigStore.instance().store
    for group in (*GROUPS, "store"):
        for file in (CONF / group).glob("*.yaml"):
            store(file.stem, OmegaConf.load(file), group=f"pipeline/{group}")
    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    own = [item for item in config["defaults"] if item == "_self_" or _is_own(item)]
    del config["hydra"]
    store("config", {**config, "defaults": own}, group="pipeline")


def _is_own(item: Any) -> bool:
    """Whether an item of our defaults list makes sense inside another application."""
    return item == "schema" or (isinstance(item, dict) and set(item) <= {*GROUPS, "store"})


def require_single_options(overrides: Sequence[str]) -> None:
    """Refuse a list of options of one group, of which Hydra would silently keep the last.

    Args:
        overrides: Words of the command line.

    Raises:
        ConfigurationError: One of them gives a list.
    """
    groups = "|".join((*GROUPS, "store"))
    lists = [
        found
        for word in overrides
        if (found := re.fullmatch(rf"(.*/)?({groups})(@[\w.]+)?=\[(.*)\]", word))
    ]
    if lists:
        raise ConfigurationError([several_options(found[2], found[4]) for found in lists])


def several_options(group: str, options: str) -> str:
    """Say what to write in place of several options of one group.

    Args:
        group: The group.
        options: Its options, with commas between them.

    Returns:
        One sentence.
    """
    names = [name.strip() for name in options.split(",")]
    instead = "choose one"
    if group == "job":
        instead = f"one job with all is 'job.operators=[{','.join(names)}]'"
    return (
        f"{group}: expected one option, got {', '.join(names)}; {instead}, "
        f"and a sweep over them python -m pipeline -m {group}={','.join(names)}"
    )


def to_job(cfg: DictConfig, files: dict[str, str] | None = None) -> Job:
    """Turn a composed configuration into a job; nothing behind this line sees omegaconf.

    Args:
        cfg: Composed from conf/.
        files: Texts to keep with the results: config.yaml, overrides.yaml, hydra.yaml, command.

    Returns:
        The job.

    Raises:
        ConfigurationError: A value is missing or cannot be read.
    """
    missing = sorted(str(key) for key in OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigurationError([f"{key} has no value; give {key}=…" for key in missing])
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    _require_keys(plain)
    job, grid, device = plain["job"], dict(plain["grid"]), plain["device"]
    executor = dict(plain["executor"])
    pattern, storage = _patterned(plain["pattern"], Storage.of(plain["store"]))
    operators = _operators(job["operators"])
    return Job(
        name=_folder_name(job.get("name") or _name_of(operators)),
        operators=operators,
        order=plain["order"],
        function=plain["function"],
        parameters=plain["function_params"],
        wrt=_items("wrt", "inputs, parameters", plain["wrt"]),
        outputs=_items("outputs", "null for all", plain["outputs"]),
        masses=tuple(plain["masses"]),
        pattern=pattern,
        grid=str(grid.pop("name")),
        grid_options=grid,
        directions={} if plain["directions"].get("name", "none") == "none" else plain["directions"],
        plugins=tuple(plain["plugins"]),
        options=Options(
            device=str(device["name"]),
            memory=parse_bytes(plain["memory"]),
            **{
                name: plain[name]
                for name in (
                    "dtype",
                    "route",
                    "mode",
                    "batch",
                    "chunk",
                    "on_disagreement",
                    "on_point_error",
                    "finite_differences",
                )
            },
        ),
        seed=plain["seed"],
        output_dir=Path(plain["output_dir"]),
        shard_rows=plain["shard_rows"],
        executor=Workers(str(executor.pop("name")), executor.pop("retries", 0), executor),
        storage=storage,
        dry_run=plain["dry_run"] or plain["explain"],
        config=files or {},
    )


def _patterned(path: str | None, storage: Storage) -> tuple[Any, Storage]:
    """The pattern that a file gives, and how results with it are kept."""
    if path is None:
        return None, storage
    from pipeline.runs.patterns import (  # torch, which --help does not need
        read_pattern,
        sparse_format,
    )

    kept = replace(storage, format=sparse_format(storage.format, path))
    return read_pattern(path), kept


def _require_keys(plain: Mapping[str, Any]) -> None:
    """Refuse a configuration that has lost a key, such as by ``~function``."""
    needed = dict.fromkeys(GROUPS, ("name",)) | {"job": ("operators",)}
    lost = [field.name for field in fields(Schema) if field.name not in plain]
    for group, keys in needed.items():
        chosen = plain.get(group) or {}
        lost += [f"{group}.{key}" for key in keys if not chosen.get(key)] if chosen else [group]
    lost = list(dict.fromkeys(lost))
    if lost:
        raise ConfigurationError([f"{key} has no value; give {key}=…" for key in lost])


def _name_of(operators: tuple[str, ...]) -> str:
    """The option of ``job`` that asks for just these operators, or their names."""
    for file in (CONF / "job").glob("*.yaml") if len(operators) > 1 else ():
        option: Any = OmegaConf.load(file)
        if tuple(option.operators) == operators:
            return file.stem
    return "_".join(operators)


def _folder_name(value: Any) -> str:
    if not re.fullmatch(r"\w[\w.-]*", str(value)):
        raise ConfigurationError([f"job.name: expected letters, digits, _, - and ., got {value!r}"])
    return str(value)


def _operators(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ConfigurationError([f"job.operators: expected a list of names, got {value!r}"])


def _items(key: str, words: str, value: Any) -> str | int | tuple[str | int, ...] | None:
    entries = value if isinstance(value, list) else [value]
    wrong = [item for item in entries if isinstance(item, bool) or not isinstance(item, str | int)]
    if value is None or (entries and not wrong):
        return tuple(entries) if isinstance(value, list) else value
    raise ConfigurationError(
        [f"{key}: expected {words}, a name, an index, or a list of these, got {value!r}"]
    )


def parse_bytes(text: str | None) -> int | None:
    """Read a size of memory.

    Args:
        text: E.g. "8GiB", "500 MB", "1e9"; binary units throughout. None stays None.

    Returns:
        Bytes.

    Raises:
        ConfigurationError: It is no size.

    Examples:
        >>> parse_bytes("2GiB")
        2147483648
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?(?:e[0-9]+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    size = float(match[1]) * 2 ** UNITS[match[2]] if match else math.inf
    if math.isinf(size):
        raise ConfigurationError([f"memory: expected a size such as 8GiB, got {text!r}"])
    return int(size)
