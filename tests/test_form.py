"""The suite guards the form."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

EXPERIMENTS = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
SMALLER = {"black_scholes_greeks": ("grid.count=3",)}
SOURCES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_runs_by_the_command_it_begins_with(path, cli):
    command = path.read_text().splitlines()[1]  # the first line is Hydra's
    assert command == f"# python -m pipeline experiment={path.stem}"
    done = cli(*command.split()[4:], *SMALLER.get(path.stem, ()))
    assert done.returncode == 0, done.stderr


def test_every_yaml_begins_with_a_comment():
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert path.read_text().startswith("#"), path


def test_import_contracts_hold():
    script = Path(sys.executable).parent / "lint-imports"
    if not script.exists():
        pytest.skip("import-linter is not installed; it is in the extra [dev]")
    done = subprocess.run([script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def functions():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                text = ast.get_docstring(node, clean=False)
                lines = node.end_lineno - node.lineno + 1 - (text.count("\n") + 1 if text else 0)
                yield lines, f"{path.relative_to(ROOT)}:{node.name}"


def test_functions_and_files_stay_small():
    lengths = sorted(functions())
    assert lengths[len(lengths) // 2][0] <= 8
    assert lengths[-1][0] <= 60, lengths[-3:]
    for path in SOURCES:
        assert path.read_text().count("\n") <= 400, path


def test_the_readme_names_what_exists():
    text = (ROOT / "README.md").read_text()
    config = (ROOT / "conf" / "config.yaml").read_text()
    for group in ("job", "grid", "device"):
        (row,) = re.findall(rf"^\| {group} \| (.*) \|$", text, flags=re.MULTILINE)
        named = {word.split(" ")[0] for word in row.split(", ")}
        assert named == {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
    (keys,) = re.findall(r"Keys beside these: (.*?);", text, flags=re.DOTALL)
    for key in re.findall(r"`([a-z_]+)", keys):
        assert f"\n{key}:" in config, key


def test_the_constraints_are_those_of_the_environment_that_was_made_with_them():
    from importlib.metadata import version

    from packaging.version import Version

    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    if Version(version("torch")) < Version(pins["torch"]):
        pytest.skip("an older torch: constraints.txt was not used here")
    for name in ("torch", "h5py", "hydra-core", "pluggy", "pytest"):
        assert Version(version(name)) >= Version(pins[name]), name
