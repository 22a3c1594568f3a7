"""Plugins: one registry, one door, loud conflicts."""

import importlib.metadata
import sys

import pytest

from pipeline import Function, GridKind, hookimpl
from pipeline import registry as registry_module
from pipeline.errors import ConfigurationError, PluginError
from pipeline.registry import Registry, build_registry, load_file


def simple(scale: float = 1.0):
    return lambda x: scale * (x**2).sum()


def contributing(*records):
    class Plugin:
        @hookimpl
        def pipeline_functions(self):
            return list(records)

    return Plugin()


def test_the_built_in_plugins_are_there():
    registry = build_registry()
    assert not registry.failures
    assert {"rosenbrock", "lennard_jones", "black_scholes", "mlp"} <= set(registry.functions)
    assert {"linspace", "random", "sobol", "latin_hypercube", "file", "points"} <= set(
        registry.grids
    )


def test_a_file_of_the_user(mine):
    assert build_registry([str(mine)]).function("chain").parameters["stiffness"].default == 1.0


def test_a_file_may_import_its_neighbours_but_hides_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour_of_mine.py").write_text("scale = 3.0\n")
    (tmp_path / "json.py").write_text("raise RuntimeError\n")
    path = tmp_path / "own.py"
    path.write_text("import json\nfrom neighbour_of_mine import scale\n")
    assert load_file(str(path)).scale == 3.0


def test_an_unknown_name_says_what_is_known():
    registry = Registry.of(
        {"a": contributing(Function("bowl", simple))}, {"lost (x.y)": "ImportError: no x"}
    )
    with pytest.raises(ConfigurationError) as caught:
        registry.function("bwol")
    text = str(caught.value)
    assert "function 'bwol' is unknown. Did you mean 'bowl'? Known: bowl." in text
    assert "Plugin lost (x.y) could not be loaded: ImportError: no x." in text
    assert "plugins=[./mine.py]" in text
    with pytest.raises(ConfigurationError, match="grid 'circle' is unknown"):
        registry.grid("circle")


def test_duplicate_names_name_both_owners():
    one, two = contributing(Function("bowl", simple)), contributing(Function("bowl", simple))
    with pytest.raises(
        PluginError, match="'bowl' is contributed twice: by '(one|two)' and by '(one|two)'"
    ):
        Registry.of({"one": one, "two": two})


class Misspelt:
    @hookimpl
    def pipeline_function(self):
        return []


class Unmarked:
    def pipeline_functions(self):
        return []


class WrongRecord:
    @hookimpl
    def pipeline_functions(self):
        return ["bowl"]


class Raising:
    @hookimpl
    def pipeline_grids(self):
        raise KeyError("x")


class Generator:
    @hookimpl
    def pipeline_functions(self):
        yield Function("bowl", simple)


class WrongArgument:
    @hookimpl
    def pipeline_run_started(self, runn):
        pass


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (Misspelt(), "there is no hook 'pipeline_function'; did you mean pipeline_functions"),
        (Unmarked(), "pipeline_functions is not marked as a hook; write @hookimpl"),
        (WrongRecord(), "has to return a list of Function records, got str 'bowl'"),
        (Raising(), "pipeline_grids raised KeyError"),
        (WrongArgument(), "runn"),
        (contributing(Function("bowl", lambda a: a)), "parameter 'a' of its builder needs a type"),
        (
            contributing(GridKind("g", simple)),
            "has to return a list of Function records, got GridKind",
        ),
    ],
)
def test_plugins_that_break_the_contract(plugin, message):
    with pytest.raises(PluginError, match=message):
        Registry.of({"broken": plugin})


def test_a_generator_is_collected():
    assert "bowl" in Registry.of({"g": Generator()}).functions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("1/0", "cannot be imported: ZeroDivisionError"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("import sys; sys.exit(0)", "cannot be imported: SystemExit: 0"),
    ],
)
def test_a_file_that_cannot_be_imported(tmp_path, content, message):
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(PluginError, match=message):
        build_registry([str(tmp_path / "bad.py")])


def test_a_file_that_is_not_there():
    with pytest.raises(PluginError, match="expected a Python file, found nothing at"):
        build_registry(["./nowhere.py"])


def test_a_broken_entry_point_costs_only_itself(monkeypatch):
    entries = [
        importlib.metadata.EntryPoint("broken", "no_such_module_anywhere", "pipeline.plugins"),
        importlib.metadata.EntryPoint("good", "plugins.notebook", "pipeline.plugins"),
    ]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: entries)
    registry = build_registry()
    assert "weighted_squares" in registry.functions
    assert "ModuleNotFoundError" in registry.failures["broken (no_such_module_anywhere)"]
