"""The one registry: names in, records out; plugins come in through pluggy."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from pipeline import hookspecs
from pipeline.errors import ConfigurationError, PluginError, nearest, one_line, told
from pipeline.functions.files_read import importing
from pipeline.functions.record import Function
from pipeline.grids import builtin as builtin_grids
from pipeline.grids.kind import GridKind

GROUP = "pipeline.plugins"
Record = Function | GridKind
HOOK_NAMES = tuple(sorted(name for name in vars(hookspecs) if name.startswith("pipeline_")))


@dataclass(frozen=True)
class Registry:
    """Everything that plugins contribute.

    Attributes:
        functions: Functions by name.
        grids: Kinds of grids by name.
        failures: Plugin -> why it could not be loaded.
        hook: Caller of the observing hooks.
        owners: Kind and name of a record -> the plugin that contributes it.
    """

    functions: Mapping[str, Function]
    grids: Mapping[str, GridKind]
    failures: Mapping[str, str] = field(default_factory=dict)
    hook: Any = None
    owners: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, plugins: Mapping[str, object], failures: Mapping[str, str] | None = None
    ) -> Registry:
        """Collect what the given plugins contribute.

        Args:
            plugins: Plugin objects or modules by owner.
            failures: Plugins that could not be loaded, and why.

        Returns:
            The registry.

        Raises:
            PluginError: A plugin breaks its contract, or two contribute the same name.
        """
        manager = pluggy.PluginManager("pipeline")
        manager.add_hookspecs(hookspecs)
        for owner, plugin in plugins.items():
            _register(manager, owner, plugin)
        owners: dict[str, str] = {}
        functions = _collect(manager, "pipeline_functions", Function, owners)
        grids = _collect(manager, "pipeline_grids", GridKind, owners)
        return cls(functions, grids, dict(failures or {}), manager.hook, owners)

    def function(self, name: str) -> Function:
        """Find a function by name.

        Args:
            name: What the user types.

        Returns:
            Its record.

        Raises:
            ConfigurationError: No plugin contributes it.
        """
        self._require(self.functions, "function", name)
        return self.functions[name]

    def grid(self, name: str) -> GridKind:
        """Find a kind of grid by name.

        Args:
            name: What the user types.

        Returns:
            Its record.

        Raises:
            ConfigurationError: No plugin contributes it.
        """
        self._require(self.grids, "grid", name)
        return self.grids[name]

    def _require(self, known: Mapping[str, Any], kind: str, name: str) -> None:
        if name in known:
            return
        lost = "".join(
            f" Plugin {who} could not be loaded: {why}." for who, why in self.failures.items()
        )
        own = " Name your own file with plugins=[./mine.py]." if kind == "function" else ""
        raise ConfigurationError([f"{kind} {name!r} is unknown. {nearest(name, known)}{lost}{own}"])


def build_registry(files: Sequence[str] = (), own: Mapping[str, object] | None = None) -> Registry:
    """Load the installed plugins (entry points `pipeline.plugins`) and the user's own files.

    An installed plugin that cannot be loaded is kept in `Registry.failures`; a file that the
    user named must load.

    Args:
        files: Paths of Python files.
        own: Further plugin objects by owner, e.g. observers of the caller.

    Returns:
        The registry.

    Raises:
        PluginError: A named file cannot be loaded, or a plugin breaks its contract.
    """
    plugins: dict[str, object] = {"pipeline.grids": builtin_grids, **(own or {})}
    failures: dict[str, str] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        _load_entry(entry, plugins, failures)
    for file in files:
        plugins[str(file)] = module = load_file(file)
        _require_hooks(str(file), module)
    return Registry.of(plugins, failures)


def _load_entry(entry: EntryPoint, plugins: dict[str, object], failures: dict[str, str]) -> None:
    owner = f"{entry.name} ({entry.value})"
    try:
        plugin = entry.load()
        Registry.of({owner: plugin})
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever a third party's import raises is its own failure
        failures[owner] = told(error)
    else:
        plugins[owner] = plugin


def load_file(file: str) -> ModuleType:
    """Import a plugin from a Python file; its folder serves its own imports, after all others.

    Args:
        file: Path of the file.

    Returns:
        The module.

    Raises:
        PluginError: The file is missing or raises while it is imported.
    """
    path = Path(file).expanduser().resolve()
    if path.suffix != ".py" or not path.is_file():
        raise PluginError(
            f"plugin {file!r}: expected a Python file, found nothing at {path}; check plugins=[…]"
        )
    name = f"pipeline_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module
    try:
        with importing(path):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        del sys.modules[name]
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = f"; install {error.name} into this environment, or put it beside the file"
        raise PluginError(
            f"plugin {file!r} cannot be imported: {told(error)}{_line(error, path)}{hint}"
        ) from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """Where in a file an error arose, where Python's own text does not say it."""
    frames = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return f" (line {frames[-1]} of the file)" if frames else ""


def _register(manager: pluggy.PluginManager, owner: str, plugin: object) -> None:
    _check_hook_names(owner, plugin)
    try:
        manager.register(plugin, name=owner)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(f"plugin {owner!r} cannot be used: {one_line(error)}") from error


def _require_hooks(file: str, module: ModuleType) -> None:
    """Refuse a file that would be loaded for nothing."""
    if any(_is_marked(member) for member in vars(module).values()):
        return
    found = [name for name in vars(module) if name.startswith("pipeline_")]
    if set(found) & set(HOOK_NAMES):
        return  # one that is not marked: that is said of any plugin
    close = difflib.get_close_matches(found[0], HOOK_NAMES, n=1) if found else []
    meant = f"{found[0]} is none; did you mean {close[0]}? " if close else ""
    raise PluginError(
        f"plugin {file!r} has no hook: {meant}write `@hookimpl` above `def pipeline_functions(): return "
        "[Function(…)]`, or begin with python -m pipeline.catalog new my_function.py"
    )


def _is_marked(member: object) -> bool:
    return getattr(member, "pipeline_impl", None) is not None


def _check_hook_names(owner: str, plugin: object) -> None:
    for name in dir(plugin):
        member = getattr(plugin, name, None)
        marked = _is_marked(member)
        if marked and name not in HOOK_NAMES:
            close = difflib.get_close_matches(name, HOOK_NAMES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(HOOK_NAMES)}"
            raise PluginError(f"plugin {owner!r}: there is no hook {name!r}; {hint}")
        if name in HOOK_NAMES and callable(member) and not marked:
            raise PluginError(
                f"plugin {owner!r}: {name} is not marked as a hook; write @hookimpl above it "
                "(from pipeline import hookimpl)"
            )


def _collect(
    manager: pluggy.PluginManager, hook: str, kind: type[Record], owners: dict[str, str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        owner = implementation.plugin_name
        for record in _call(implementation.function, owner, hook, kind):
            what = f"{kind.__name__.lower()} {record.name}"
            if what in owners:
                raise PluginError(
                    f"{kind.__name__.lower()} {record.name!r} is contributed twice: by {owners[what]!r} "
                    f"and by {owner!r}; rename one of them"
                )
            found[record.name], owners[what] = record, owner
    return dict(sorted(found.items()))


def _call(contribute: Callable[[], Any], owner: str, hook: str, kind: type[Record]) -> list[Any]:
    try:
        given = contribute()
        records = [given] if given is None or isinstance(given, kind) else list(given)
    except (Exception, SystemExit) as error:  # the plugin's own code may raise anything
        raise PluginError(f"plugin {owner!r}: {hook} raised {told(error)}") from error
    for record in records:
        if not isinstance(record, kind):
            raise PluginError(
                f"plugin {owner!r}: {hook} has to return a list of {kind.__name__} records, "
                f"got {type(record).__name__} {record!r}"
            )
        record.check()
    return records
