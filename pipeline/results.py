"""Commands on results: ``python -m pipeline.results verify PATH``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.errors import PipelineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command.

    Args:
        arguments: Of the command line.

    Returns:
        Exit code: 0 where all is well, 1 where something is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m pipeline.results", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verifying = commands.add_parser(
        "verify", help="check files, checksums and, at stored points, the derivatives themselves"
    )
    verifying.add_argument("path", help="a result file, or the directory of a run")
    verifying.add_argument(
        "--plugins", nargs="+", default=[], metavar="FILE", help="files that define the function"
    )
    verifying.add_argument("--points", type=int, default=16, help="points to compare")
    verifying.set_defaults(run=_verify)
    given = parser.parse_args(arguments)
    try:
        code: int = given.run(given)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code


def _verify(given: argparse.Namespace) -> int:
    from pipeline.verification import verify

    outcome = verify(given.path, given.plugins, given.points)
    for fact in outcome.facts:
        print(fact)
    for fault in outcome.faults:
        print(f"wrong: {fault}", file=sys.stderr)
    print(f"{outcome.path}: {'NOT verified' if outcome.faults else 'verified'}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
