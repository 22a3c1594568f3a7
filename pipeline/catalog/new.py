"""Begin a plugin: a file that works at once, and its test."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from string import Template

from pipeline.errors import PluginError, one_line
from pipeline.registry import build_registry


def write_plugin(file: str) -> str:
    """Write a commented plugin and its conformance test; nothing is ever overwritten.

    Args:
        file: The plugin, such as my_function.py; its name is the name of the function.

    Returns:
        What was written, and what to do next.

    Raises:
        PluginError: The name cannot be used, something is there already, or it cannot be written.
    """
    path = Path(file).expanduser()
    name = path.stem
    _require_name(path)
    test = path.with_name(f"test_{path.name}")
    words = {
        "name": name,
        "file": path.name,
        "test": test.name,
        "camel": "".join(part.capitalize() for part in name.split("_")),
    }
    for target in (path, test):
        if target.exists():
            raise PluginError(
                f"{target} is there already and is not overwritten; choose another name"
            )
    for target, template in ((path, "plugin.txt"), (test, "test.txt")):
        text = (resources.files("pipeline.catalog") / template).read_text(encoding="utf-8")
        _write(target, Template(text).substitute(words))
    return (
        f"wrote {path} and {test}; edit the first, then\n"
        f"  python -m pipeline.catalog check {path}\n"
        f"  python -m pytest {test}\n"
        f"  python -m pipeline job=hessian function={name} 'plugins=[{path}]' grid=random grid.count=1000"
    )


def _require_name(path: Path) -> None:
    name = path.stem
    if path.suffix != ".py" or not name.isidentifier() or name.startswith("test_"):
        raise PluginError(
            f"expected the name of a Python file, such as my_function.py, got {path.name!r}; use letters, "
            "digits and _, beginning with a letter, and not with test_"
        )
    if name in build_registry().functions:
        raise PluginError(
            f"a function {name!r} is there already (python -m pipeline.catalog {name}); choose another name"
        )


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise PluginError(
            f"{path} cannot be written: {one_line(error)}; choose a directory that is there"
        ) from error
