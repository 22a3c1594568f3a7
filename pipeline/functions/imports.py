"""Which modules a source imports, at its top or while it runs: they are a part of what it computes."""

from __future__ import annotations

import ast
import dis
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import CodeType

from pipeline.functions.files_read import INSTALLED

OWN = Path(__file__).resolve().parent.parent


def files_imported(path: Path, root: Path) -> set[Path]:
    """Find the user's source files that a source file imports, and those that these import.

    Nothing is imported: the same files are found whatever has been loaded already.

    Args:
        path: The source file, resolved.
        root: The folder that its absolute imports start from, before Python's own path.

    Returns:
        The file itself and the others; nothing of installed packages.
    """
    found, waiting = {path}, [path]
    while waiting:
        file = waiting.pop()
        new = {other for other in _files(file, root) if _is_users(other)} - found
        found |= new
        waiting += new
    return found


def _is_users(path: Path) -> bool:
    parts = set(path.parts)
    installed = str(path).startswith(INSTALLED) or parts & {"site-packages", "dist-packages"}
    return not installed and OWN not in path.parents


def _files(path: Path, root: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # whoever imports it will say so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _absolute(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            names = node.module.split(".") if node.module else []
            base = path.parents[min(node.level, len(path.parents)) - 1] if node.level else root
            yield from (base / "__init__.py",) if (base / "__init__.py").is_file() else ()
            for alias in node.names:
                found = (_along, base) if node.level else (_absolute, root)
                yield from found[0](found[1], [*names, alias.name])


def _absolute(root: Path, names: list[str]) -> Iterator[Path]:
    """Below the root, or wherever Python finds the first of the names."""
    found = list(_along(root, names))
    yield from found or (file for place in _places(names[0]) for file in _along(place, names))


@cache
def _places(name: str) -> tuple[Path, ...]:
    """Folders in which Python finds a module or a package of this name, where they are the user's."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # __main__, or a module that was made by hand
        return ()
    if spec is None:
        return ()
    lies = [Path(place).parent for place in spec.submodule_search_locations or ()]
    lies += [Path(spec.origin).parent] if spec.has_location and spec.origin and not lies else []
    return tuple(place for place in lies if _is_users(place / name))


def imports_by_name(path: Path) -> bool:
    """Tell whether a source imports modules whose names it makes up while it runs.

    Args:
        path: The source file.

    Returns:
        True where it may.
    """
    return (
        re.search(rb"import_module|__import__|importlib|runpy|\bexec\b", path.read_bytes())
        is not None
    )


def _along(base: Path, names: list[str]) -> Iterator[Path]:
    """The packages on the way, and the module; a name that is none is one of something in it."""
    for depth in range(1, len(names) + 1):
        place = base.joinpath(*names[:depth])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                yield file.resolve()


def modules_imported(code: CodeType, package: str) -> list[str]:
    """Find the modules that a code imports while it runs.

    Args:
        code: Of a function.
        package: The package that its relative imports start from.

    Returns:
        Their names, sorted; those that are not there are its own affair.
    """
    steps = list(dis.get_instructions(code))
    names = {
        name
        for index, step in enumerate(steps)
        if step.opname == "IMPORT_NAME"
        for name in _names(step.argval, steps[index - 2].argval, steps[index - 1].argval, package)
    }
    nested = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return sorted(
        {*names, *(name for inner in nested for name in modules_imported(inner, package))}
    )


def _names(module: str, level: int, members: tuple[str, ...] | None, package: str) -> Iterator[str]:
    if level and not package:
        return
    base = resolve_name("." * level + module, package) if level else module
    if not _is_there(base):
        return
    yield base
    spec = find_spec(base)
    if spec is not None and spec.origin is not None and _is_users(Path(spec.origin)):
        yield from (name for member in members or () if _is_there(name := f"{base}.{member}"))


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # no package, or a module that was made by hand
        return False
