"""Commands on results: ``python -m pipeline.results show PATH``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.display import spell_bytes
from pipeline.errors import PipelineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command.

    Args:
        arguments: Of the command line.

    Returns:
        Exit code: 0 where all is well, 1 where something is wrong.
    """
    given = _parser().parse_args(arguments)
    try:
        code: int = given.run(given)
        sys.stdout.flush()
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever was reading, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.results", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _looking(commands)
    _making(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--edited",
            action="store_true",
            help="open files that were changed since they were written",
        )
    return parser


def _looking(commands: Any) -> None:
    showing = commands.add_parser("show", help="what is inside, from whom, how sure")
    showing.add_argument("path", help="a result file, a shard, or the directory of a run")
    showing.add_argument("--json", action="store_true", help="for programs")
    showing.add_argument(
        "--watch",
        action="store_true",
        help="follow a run, whoever computes it, until it is complete",
    )
    showing.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="of --watch")
    showing.set_defaults(run=_show)
    verifying = commands.add_parser(
        "verify", help="check files, checksums and, at stored points, the derivatives themselves"
    )
    verifying.add_argument("path", help="a result file, or the directory of a run")
    verifying.add_argument(
        "--plugins", nargs="+", default=[], metavar="FILE", help="files that define the function"
    )
    verifying.add_argument("--points", type=int, default=16, help="points to compare")
    verifying.set_defaults(run=_verify)


def _making(commands: Any) -> None:
    reporting = commands.add_parser("report", help="one HTML page with pictures")
    reporting.add_argument("path", help="a result file, or the directory of a run")
    reporting.add_argument("target", nargs="?", type=Path, help="default: report.html beside it")
    reporting.add_argument("--points", default="", help="where matrices are drawn, as in 0,5")
    reporting.set_defaults(run=_report)
    merging = commands.add_parser(
        "consolidate", help="one self-contained file of a finished result"
    )
    merging.add_argument("path", help="a result file, or the directory of a run")
    merging.add_argument("target", type=Path, help="the file to write")
    merging.add_argument("--compression", help="none, gzip or zstd; default: as it is")
    merging.add_argument("--level", type=int, help="of the compression; default: its own")
    merging.set_defaults(run=_consolidate)
    exporting = commands.add_parser("export", help="to NumPy, Zarr, AnnData or CSV")
    exporting.add_argument("path", help="a result file, or the directory of a run")
    exporting.add_argument(
        "target", type=Path, help="name.csv, name.zarr, name.h5ad, or a directory for .npy"
    )
    exporting.add_argument(
        "--to", metavar="FORMAT", help="npy, zarr, h5ad or csv; default: by the name"
    )
    exporting.add_argument("--names", default="", help="datasets, as in x,hessian; default: all")
    exporting.add_argument("--points", default="", help="of a CSV, as in 0,5,10:20; default: all")
    exporting.set_defaults(run=_export)


def _show(given: argparse.Namespace) -> int:
    if given.watch:
        _watch(given)
    from pipeline.results.account import facts, render
    from pipeline.store.files.trust import readable
    from pipeline.store.reading.reader import open_results

    with open_results(given.path, edited=given.edited) as results, readable(results.account):
        account = facts(results)
        text = json.dumps(account, indent=2) if given.json else render(account)
    print(text)
    return 0


def _watch(given: argparse.Namespace) -> None:
    from pipeline.results.watching import watch

    try:
        for line in watch(Path(given.path), given.every):
            print(line, flush=True)
    except KeyboardInterrupt:
        sys.exit(130)


def _report(given: argparse.Namespace) -> int:
    from pipeline.store.export.formats import select_points
    from pipeline.store.reading.reader import open_results

    try:
        from pipeline.results.report.page import write_report
    except ImportError as error:
        raise PipelineError(
            f"a report needs matplotlib and Jinja2 ({error}); pip install 'pipeline-derivatives[report]'"
        ) from error
    with open_results(given.path, edited=given.edited) as results:
        target = given.target or results.account.with_name("report.html")
        points = select_points(given.points, len(results)) if given.points else ()
        write_report(results, target, points)
    print(target)
    return 0


def _consolidate(given: argparse.Namespace) -> int:
    from pipeline.store.export.consolidate import consolidate
    from pipeline.store.files.compression import resolve_storage
    from pipeline.store.reading.reader import open_results

    asked = {"compression": given.compression, "level": given.level}
    if given.level is not None and given.compression is None:
        raise PipelineError(
            f"--level: expected --compression beside it, got --level {given.level} alone"
        )
    storage = None if given.compression is None else resolve_storage(asked)
    with open_results(given.path, edited=given.edited) as results:
        consolidate(results, given.target, storage)
    size = spell_bytes(given.target.stat().st_size)
    print(f"{given.target}: {size}, every checksum was right")
    return 0


def _export(given: argparse.Namespace) -> int:
    from pipeline.store.export.formats import export
    from pipeline.store.reading.reader import open_results

    kind = given.to or given.target.suffix.removeprefix(".") or "npy"
    names = [name for name in given.names.split(",") if name]
    with open_results(given.path, edited=given.edited) as results:
        export(results, given.target, kind, names, given.points)
    print(given.target)
    return 0


def _verify(given: argparse.Namespace) -> int:
    from pipeline.results.verification import verify

    outcome = verify(given.path, given.plugins, given.points, edited=given.edited)
    for fact in outcome.facts:
        print(fact)
    for fault in outcome.faults:
        print(f"wrong: {fault}", file=sys.stderr)
    print(outcome.verdict)
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
