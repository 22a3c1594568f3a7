"""``python -m pipeline``."""

import os
import sys
from pathlib import Path


def _installed_packages_first() -> None:
    """Keep a folder of the user that happens to be called plugins or conf from hiding ours.

    ``python -m`` puts the current directory first on the path; it is searched last instead, for
    what the user's own configuration names, such as callbacks of Hydra.
    """
    here, home = Path.cwd(), Path(__file__).resolve().parent.parent
    if sys.path and Path(sys.path[0] or ".").resolve() == here and here != home:
        sys.path.append(sys.path.pop(0))


def _wait_without_spinning() -> None:
    """Let threads of a busy machine sleep while they wait for each other.

    OpenMP threads spin by default: two jobs on the same cores then take up to 18 times as long
    (docs/performance.md). Read once, when torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def prepare_process() -> None:
    """Set up what has to be before anything is imported."""
    _wait_without_spinning()
    _installed_packages_first()


def main() -> None:
    """Prepare the process, then run: also what the command `pipeline` calls."""
    prepare_process()
    sys.argv[0] = "pipeline"  # the name that usage messages give
    from pipeline.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
