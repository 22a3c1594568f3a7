"""Parts of the reference that are made from the code and from conf/, so that they cannot go stale.

A page says ``<!-- generated: NAME -->`` where the part called NAME belongs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
NO_GROUPS = ("hydra", "__pycache__")
HYDRA = (CONF / "hydra" / "launcher", CONF / "hydra" / "sweeper")
KEY = re.compile(r"^(?P<indent> *)(?P<key>[a-z][a-z_-]*):(?P<value>[^#\n]*)(?:#(?P<meaning>.*))?$")
STATUS = {
    "missing": "not computed yet, or its shard is not there",
    "ok": "every derivative is finite",
    "nonfinite": "an entry or the value of the function is infinite or NaN; all are stored as torch gives them",
    "failed": "the function raised; all entries are NaN, and what it said is in the file",
    "nonsmooth": "exactly on a kink of the function, or where torch's formula of the derivative is wrong; "
    "what torch gives is stored",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what is generated: a hook of MkDocs.

    Args:
        markdown: A page as it was written.

    Returns:
        The page as it is shown.
    """
    return re.sub(r"<!-- generated: (\S+) -->", lambda found: PARTS[found[1]](), markdown)


def configuration() -> str:
    """Every key of conf/config.yaml with its default and meaning."""
    text = (CONF / "config.yaml").read_text().split("\nhydra:\n")[0]
    lines = text[text.index("_self_") :].splitlines()
    return _table(("key", "default", "meaning"), _keys(lines))


def groups() -> str:
    """Every group of conf/, with the options of each of its files."""
    own = sorted(path for path in CONF.iterdir() if path.is_dir() and path.name not in NO_GROUPS)
    folders = [*own, *(folder for folder in HYDRA if folder.is_dir())]
    parts = ((folder.relative_to(CONF).as_posix(), folder) for folder in folders)
    return "\n\n".join(f"## {name}\n\n{_group(name, folder)}" for name, folder in parts)


def _group(name: str, folder: Path) -> str:
    parts = []
    for path in sorted(folder.glob("*.yaml")):
        first, *lines = path.read_text().splitlines()
        said = [line for line in (first, *lines[:2]) if line.startswith("# ") and "@" not in line]
        parts.append(f"### {name}={path.stem}\n\n" + "\n".join(map(_sentence, said)))
        keys = [row for row in _keys(lines) if row[0] not in ("`name`", "`defaults`")]
        if keys and name != "experiment":
            parts.append(_table(("key", "default", "meaning"), keys))
    return "\n\n".join(parts)


def _sentence(comment: str) -> str:
    text = comment.removeprefix("# ")
    prose, found, command = text.partition("python -m ")
    return f"{prose}`{found}{command}`  " if found else f"{prose}  "


def _keys(lines: Iterable[str]) -> list[tuple[str, str, str]]:
    rows, path = [], list[str]()
    for line in lines:
        found = KEY.match(line)
        if found is None:
            continue
        depth = len(found["indent"]) // 2
        path = [*path[:depth], found["key"]]
        value = found["value"].strip()
        meaning = (found["meaning"] or "").strip()
        rows.append((f"`{'.'.join(path)}`", f"`{value}`" if value else "", meaning))
    return rows


def commands() -> str:
    """The command lines of everything that is no Hydra application, as ``--help`` prints them."""
    return "\n\n".join(map(_help, ("pipeline.results", "pipeline.catalog")))


def _help(module: str) -> str:
    whole = _printed(module, "--help")
    parts = [f"## python -m {module}", _fenced(whole)]
    for name in re.findall(r"^    ([a-z]+)(?: |$)", whole, flags=re.MULTILINE):
        title = f"### {module.removeprefix('pipeline.')} {name}"
        parts += [title, _fenced(_printed(module, name, "--help"))]
    return "\n\n".join(parts)


def _printed(*words: str) -> str:
    command, environment = [sys.executable, "-m", *words], {**os.environ, "COLUMNS": "88"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def functions() -> str:
    """Every function that is built in."""
    from pipeline.registry import build_registry

    registry = build_registry()
    rows = []
    for name in sorted(registry.functions):
        record = registry.function(name)
        parameters = ", ".join(f"{key}={value.default}" for key, value in record.parameters.items())
        rows.append(
            (f"`{name}`", record.summary, f"`{parameters}`" if parameters else "", record.source)
        )
    return _table(("function", "what it is", "parameters", "source"), rows)


def status() -> str:
    """What each number in the dataset `status` means."""
    from pipeline.store.layout import STATUS as CODES

    rows = [(str(code), f"`{name}`", STATUS[name]) for name, code in CODES.items()]
    return _table(("code", "name", "meaning"), rows)


def errors() -> str:
    """Every message with which the package raises an error of its own, by the kind of error."""
    rows = {
        (f"`{message.error}`", "…".join(message.pieces).replace("\n", " "))
        for message in _messages()
        if message.error.endswith("Error") and message.error != "RefusedError"
    }
    return _table(("error", "message"), sorted(rows))


def _messages() -> list[Any]:
    """What the tests hold against themselves: every `raise` of the package with its text."""
    path = ROOT / "tests" / "support" / "messages.py"
    spec = importlib.util.spec_from_file_location("messages", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it
    spec.loader.exec_module(module)
    return module.messages()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    signs = str.maketrans({"|": "\\|", "<": "&lt;", "*": "\\*"})
    escaped = [[cell.translate(signs) for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(text: str) -> str:
    return f"```console\n{text.rstrip()}\n```"


PARTS: dict[str, Callable[[], str]] = {
    part.__name__: part for part in (configuration, groups, commands, functions, status, errors)
}
