"""The command line, as a user calls it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

SMALL = ("grid.count=5",)


def results(folder):
    return sorted(Path(folder).glob("outputs/*/*/*/result.h5"))


def test_the_defaults_run(cli, tmp_path):
    done = cli("job=hessian", *SMALL)
    assert done.returncode == 0, done.stderr
    (path,) = results(tmp_path)
    assert path.relative_to(tmp_path).parts[:3] == ("outputs", "hessian", "rosenbrock")
    assert "every derivative is finite" in done.stdout
    assert str(path.relative_to(tmp_path)) in done.stdout
    with h5py.File(path) as file:
        x, hessian = file["x"][()], file["hessian"][()]
        assert hessian.shape == (25, 2, 2)
        a, b = x.T
        assert np.allclose(hessian[:, 0, 0], 1200 * a**2 - 400 * b + 2)
        assert np.allclose(hessian[:, 0, 1], -400 * a)
    names = {entry.name for entry in path.parent.iterdir()}
    assert names == {"run.json", "result.h5", "shards", "pipeline.log", ".hydra"}
    assert {entry.name for entry in (path.parent / ".hydra").iterdir()} == {
        "config.yaml", "overrides.yaml", "hydra.yaml",
    }  # fmt: skip
    again = cli("job=hessian", *SMALL)
    assert "complete already: 25 points" in again.stdout
    assert results(tmp_path) == [path]
    assert {entry.name for entry in tmp_path.iterdir()} == {"outputs"}


def test_answers_at_once_without_torch(cli):
    began = time.monotonic()
    done = cli("--cfg", "job")
    assert done.returncode == 0
    assert "function: rosenbrock" in done.stdout
    code = "import sys; sys.argv=['pipeline','--cfg','job']; import pipeline.cli as c\n"
    code += "try: c.main()\nfinally: print('torch' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert seen.stdout.strip().endswith("False")
    assert time.monotonic() - began < 30
    text = cli("--help").stdout
    for word in (
        "grid: file, latin_hypercube",
        "experiment: black_scholes_greeks",
        "job: all, derivative",
    ):
        assert word in text


def test_tab_completion(cli):
    words = cli("-sc", "query=bash", COMP_LINE="pipeline job=he", COMP_POINT="15").stdout
    assert "job=hessian" in words


@pytest.mark.slow
def test_a_sweep(cli, tmp_path):
    done = cli("-m", "job=gradient,hessian", "dtype=float32,float64", *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path)) == 4
    with xarray.open_dataset(results(tmp_path)[0], engine="h5netcdf") as data:
        assert data["gradient"].shape == (25, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("job=value", "grid=random", "grid.count=10"),
        ("job=derivative", "order=3", "grid=sobol", "grid.count=8", "grid.n=3"),
        ("job=all", "function=weighted_squares", "grid=latin_hypercube", "grid.count=9"),
        (
            "job=jacobian",
            "function=robertson",
            "grid=points",
            "grid.values=[[1.0,0.0,0.0],[0.9,1e-5,0.1]]",
        ),
        ("job=gradient", "grid.spacing=log", "grid.lower=0.1", "grid.count=[3,4]"),
        ("job=hessian", "grid=random", "grid.distribution=normal", "grid.n=4", "grid.count=10"),
    ],
)
def test_jobs_and_grids(cli, tmp_path, words):
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path)) == 1


def test_a_grid_from_a_file(cli, tmp_path):
    points = np.random.default_rng(0).standard_normal((7, 3))
    np.save(tmp_path / "points.npy", points)
    done = cli("grid=file", "grid.path=points.npy", "job=gradient")
    assert done.returncode == 0, done.stderr
    with h5py.File(results(tmp_path)[0]) as file:
        assert np.array_equal(file["x"][()], points)


def test_a_file_of_the_user_and_a_folder_called_plugins(cli, tmp_path, mine):
    for folder in ("plugins", "conf"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("raise RuntimeError('not mine')\n")
    done = cli(
        "function=chain",
        "plugins=[./mine.py]",
        "function_params.stiffness=2.5",
        "grid=random",
        "grid.n=6",
    )
    assert done.returncode == 0, done.stderr
    with h5py.File(results(tmp_path)[0]) as file:
        assert file["hessian"].shape == (1000, 6, 6)
        assert json.loads(file["provenance/identity_json"][()])["parameters"] == {"stiffness": 2.5}
    assert "stiffness: 2.5" in (results(tmp_path)[0].parent / ".hydra" / "config.yaml").read_text()


@pytest.mark.slow
def test_own_configuration_from_a_directory(cli, tmp_path):
    (tmp_path / "my" / "experiment").mkdir(parents=True)
    (tmp_path / "my" / "experiment" / "tiny.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /job: gradient\ngrid:\n  count: 3\n"
    )
    done = cli("--config-dir", "my", "experiment=tiny")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path)[0].parts[-4] == "gradient"


BAD = [
    (("function=rosenbrok",), "function 'rosenbrok' is unknown. Did you mean 'rosenbrock'"),
    (("grid=linspce",), "linspce"),
    (("job=hesian",), "hesian"),
    (("functoin=ackley",), "configuration key 'functoin' is unknown. Did you mean 'function'"),
    (
        ("grid.cuont=3",),
        "configuration key 'grid.cuont' is unknown with grid=linspace. Did you mean 'count'",
    ),
    (("function_params.c=3",), "function_params.c is unknown. Known: a, b"),
    (("function_params.b=ten",), "function_params.b: expected float, got 'ten' (str)"),
    (("order=three", "job=derivative"), "order"),
    (("job=derivative",), "derivative needs an order from 1 to 8, got None; give order=3"),
    (("job=gradient", "function=weighted_squares"), "ask for the jacobian"),
    (("function=wood", "grid.n=3"), "n"),
    (("grid.count=0",), "at least one point"),
    (("grid=file",), "grid.path"),
    (("grid=file", "grid.path=nowhere.csv"), "nowhere.csv"),
    (("dtype=int8",), "dtype 'int8' cannot be used: expected one of float64, float32, float16"),
    (("route=fast",), "route 'fast' is unknown"),
    (("mode=sideways",), "mode 'sideways' does not fit order 2"),
    (("memory=lots",), "memory: expected a size such as 8GiB, got 'lots'"),
    (("plugins=[./nothing.py]",), "expected a Python file, found nothing at"),
    (("function=???",), "function has no value"),
    (("job.operators=[hesian]",), "operator 'hesian' is unknown"),
    (("batch=0",), "batch: expected a positive number or null, got 0"),
    (("shard_rows=0",), "shard_rows: expected a positive number or null, got 0"),
    (("on_disagreement=shrug",), "on_disagreement: expected error or warn"),
    (("output_dir=/proc/nowhere",), "cannot be made"),
    (("-m", "output_dir=/dev/null/x"), ": Not a directory; choose another output_dir="),
]


def rows_of_bad_input():
    """Each starts a process: all but the first few are for the long suite."""
    for index, (words, message) in enumerate(BAD):
        marks = [pytest.mark.slow] if index >= 4 else []
        yield pytest.param(words, message, id=" ".join(words), marks=marks)


@pytest.mark.parametrize(("words", "message"), list(rows_of_bad_input()))
def test_bad_input_gets_one_clear_message(cli, tmp_path, words, message):
    done = cli(*words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    assert not results(tmp_path)


def test_all_faults_at_once(cli):
    text = cli("function=rosenbrok", "dtype=float8", "route=fast", "batch=-1").stderr
    assert "4 settings cannot be used:" in text


def test_a_traceback_only_when_asked_for(cli):
    assert "Traceback" in cli("function=rosenbrok", HYDRA_FULL_ERROR="1").stderr


SLOW = """
import time
from pipeline import Function, hookimpl


def build():
    def f(x):
        time.sleep(0.002)
        return (x ** 3).sum()

    return f


@hookimpl
def pipeline_functions():
    return [Function("slow", build, n=1)]
"""
SLOW_JOB = (
    "-W", "ignore", "-m", "pipeline", "function=slow", "plugins=[./slow.py]", "grid.count=1000", "job=gradient",
    "route=loop", "shard_rows=20",
)  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_finished_shards_and_say_how_to_go_on(tmp_path, number, code):
    (tmp_path / "slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, *SLOW_JOB],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # a background job of a shell ignores SIGINT, and its children would too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while (
        not list(tmp_path.glob("outputs/*/*/*/shards/shard-00001.h5"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    os.kill(process.pid, number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == code
    assert "shards are safe in outputs/gradient/slow/" in text
    assert "run the same command again to go on" in text
    assert "Traceback" not in text
    assert not list(tmp_path.rglob("*.tmp"))
    assert not results(tmp_path)
    assert list(tmp_path.rglob("shard-*.h5"))
