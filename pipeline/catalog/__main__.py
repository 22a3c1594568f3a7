"""``python -m pipeline.catalog``: list what there is, begin a plugin, check a plugin."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.errors import PipelineError

USAGE = """python -m pipeline.catalog                        everything that can be asked for
       python -m pipeline.catalog functions              one kind: functions, grids, jobs, …
       python -m pipeline.catalog rosenbrock             one thing, in full
       python -m pipeline.catalog new my_function.py     begin a plugin, with its test
       python -m pipeline.catalog check my_function.py   check a plugin, law by law"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command.

    Args:
        arguments: Of the command line.

    Returns:
        Exit code: 0 where all is well, 1 where something is wrong.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[0] if words and words[0] in COMMANDS else ""
    try:
        code = COMMANDS[command](words[1:] if command else words)
        sys.stdout.flush()
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever was reading, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _list(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.catalog", usage=USAGE)
    parser.add_argument("words", nargs="*", help="kinds, names, or parts of names")
    _plugins(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(words)
    from pipeline.catalog.listing import entries, render, select
    from pipeline.registry import build_registry

    registry = build_registry(given.plugins)
    chosen = select(entries(registry), given.words)
    if given.json:
        print(json.dumps([entry.record() for entry in chosen], indent=2, ensure_ascii=False))
    else:
        print(render(chosen, in_full=bool(given.words)))
    for owner, reason in registry.failures.items():
        print(f"plugin {owner} could not be loaded: {reason}", file=sys.stderr)
    return 0


def _new(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.catalog new")
    parser.add_argument("file", help="the plugin to write, such as my_function.py")
    given = parser.parse_args(words)
    from pipeline.catalog.new import write_plugin

    print(write_plugin(given.file))
    return 0


def _check(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.catalog check")
    parser.add_argument("file", help="a plugin, such as ./my_function.py")
    parser.add_argument("--only", "--function", metavar="NAME", help="this function or grid alone")
    parser.add_argument("--n", type=int, help="number of inputs, where any will do")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="parameters, or options of a grid"
    )
    parser.add_argument("--seconds", type=float, help="that one check may take; 60 if not given")
    given = parser.parse_args(words)
    from omegaconf import OmegaConf

    from pipeline.catalog.check import SECONDS, Wanted, check_plugin

    options: Any = OmegaConf.to_container(OmegaConf.from_dotlist(given.set))
    wanted = Wanted(given.only, given.n, options, given.seconds or SECONDS)
    return 1 if check_plugin(given.file, wanted, print) else 0


def _plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugins", nargs="+", default=[], metavar="FILE", help="your own plugin files as well"
    )


COMMANDS = {"": _list, "list": _list, "new": _new, "check": _check}

if __name__ == "__main__":
    from pipeline.__main__ import prepare_process

    prepare_process()
    sys.exit(main())
