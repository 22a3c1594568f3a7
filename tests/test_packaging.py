"""What is given to others: the wheel, its page, and the template of a plugin package."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version

import pytest
from conftest import ROOT

TEMPLATE = ROOT / "examples" / "plugin_package"


def run(*words, **keywords):
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, **keywords
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_metadata_names_what_is_supported():
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert facts["requires-python"] == ">=3.11"
    for minor in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {minor}" in facts["classifiers"]
    assert "Typing :: Typed" in facts["classifiers"]
    assert (ROOT / "pipeline" / "py.typed").exists()


@pytest.mark.slow
def test_the_wheel_can_be_published(tmp_path):
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT)
    assert "PASSED" in run(sys.executable, "-m", "twine", "check", "--strict", *tmp_path.iterdir())
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "pipeline/py.typed",
        "pipeline/catalog/plugin.txt",
        "conf/config.yaml",
        "plugins/py.typed",
    ):
        assert name in names, name


@pytest.mark.slow
def test_the_source_archive_holds_all_that_is_needed_to_test_and_to_document(tmp_path):
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", tmp_path, ROOT)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    kept = {*run("git", "ls-files", cwd=ROOT).splitlines(), "MANIFEST.in"}
    missing = {name for name in kept - names if not name.startswith((".", "outputs/"))}
    assert not missing
    assert not [name for name in names if name.endswith(".pyc")]


@pytest.mark.slow
def test_the_template_of_a_plugin_package_is_installed_and_used(tmp_path):
    place = tmp_path / "site"
    run(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index",
        "--target", place, TEMPLATE, cwd=tmp_path,
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONWARNINGS": "ignore"}
    used = {"cwd": tmp_path, "env": environment}
    listed = run(sys.executable, "-m", "pipeline.catalog", "springs", "circle", **used)
    assert "springs (pipeline_springs)" in listed
    assert "points on a circle" in listed
    command = (sys.executable, "-m", "pipeline", "job=hessian", "function=springs")
    run(*command, "grid=plugin", "grid.name=circle", "+grid.count=5", **used)
    assert list(tmp_path.glob("outputs/hessian/springs/*/result.h5"))
    tests = TEMPLATE / "tests" / "test_springs.py"
    assert "passed" in run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, **used
    )


@pytest.mark.slow
def test_the_template_is_typed():
    pytest.importorskip("mypy")
    run(sys.executable, "-m", "mypy", "--strict", "--no-incremental", TEMPLATE / "src", cwd=ROOT)
    assert version("mypy")
