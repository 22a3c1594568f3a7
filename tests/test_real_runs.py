"""The real runs: literature values, closed forms, a kill in the middle, a wheel elsewhere."""

import math
import os
import random
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT

from pipeline import open_results


def result_of(folder):
    (path,) = Path(folder).glob("outputs/*/*/*/result.h5")
    return path


def test_modes_of_the_lennard_jones_icosahedron(cli, tmp_path):
    done = cli("experiment=lj13_modes")
    assert done.returncode == 0, done.stderr
    with h5py.File(result_of(tmp_path)) as file:
        assert abs(file["value"][0] + 44.326801) < 1e-6
        assert np.abs(file["gradient"][0]).max() < 1e-10
        modes = np.linalg.eigvalsh(file["hessian"][0])
    assert np.sum(np.abs(modes) < 1e-8) == 6
    assert np.sum(modes > 1) == 33


def normal_density(z):
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def greeks(x):
    """Closed-form price, gradient and Hessian of a European call without dividend, in NumPy alone.

    Source: E. G. Haug, The Complete Guide to Option Pricing Formulas, 2nd ed., McGraw-Hill 2007, ch. 2.
    """
    S, K, T, r, v = x.T
    root, discount = np.sqrt(T), np.exp(-r * T)
    d1 = (np.log(S / K) + (r + v * v / 2) * T) / (v * root)
    d2 = d1 - v * root
    erf = np.vectorize(math.erf)
    N1, N2 = (1 + erf(d1 / math.sqrt(2))) / 2, (1 + erf(d2 / math.sqrt(2))) / 2
    p1, p2 = normal_density(d1), normal_density(d2)
    value = S * N1 - K * discount * N2
    gradient = np.stack(
        [
            N1,
            -discount * N2,
            S * p1 * v / (2 * root) + r * K * discount * N2,
            K * T * discount * N2,
            S * p1 * root,
        ],
        axis=1,
    )
    # d d1 and d d2 with respect to (S, K, T, r, v)
    e1 = np.stack(
        [
            1 / (S * v * root),
            -1 / (K * v * root),
            (r + v * v / 2) / (v * root) - d1 / (2 * T),
            root / v,
            -d2 / v,
        ],
        axis=1,
    )
    e2 = e1 - np.stack([0 * S, 0 * S, v / (2 * root), 0 * S, root], axis=1)
    hessian = np.zeros((len(x), 5, 5))
    hessian[:, 0] = p1[:, None] * e1  # of N1
    hessian[:, 1] = -discount[:, None] * p2[:, None] * e2  # of -exp(-rT) N2
    hessian[:, 1, 2] += r * discount * N2
    hessian[:, 1, 3] += T * discount * N2
    vega = S * p1 * root  # of vega = S p1 sqrt(T)
    hessian[:, 4] = -(vega * d1)[:, None] * e1
    hessian[:, 4, 0] += p1 * root
    hessian[:, 4, 2] += S * p1 / (2 * root)
    rho = K * T * discount  # of rho = K T exp(-rT) N2
    hessian[:, 3] = (rho * p2)[:, None] * e2
    hessian[:, 3, 1] += T * discount * N2
    hessian[:, 3, 2] += K * discount * N2 * (1 - r * T)
    hessian[:, 3, 3] += -T * rho * N2
    decay = S * p1 * v / (2 * root)  # of theta = decay + r K exp(-rT) N2
    hessian[:, 2] = -(decay * d1)[:, None] * e1 + (r * K * discount * p2)[:, None] * e2
    hessian[:, 2, 0] += p1 * v / (2 * root)
    hessian[:, 2, 1] += r * discount * N2
    hessian[:, 2, 2] += -decay / (2 * T) - r * r * K * discount * N2
    hessian[:, 2, 3] += K * discount * N2 * (1 - r * T)
    hessian[:, 2, 4] += S * p1 / (2 * root)
    return {"value": value, "gradient": gradient, "hessian": hessian}


@pytest.mark.slow
def test_a_million_greeks_through_kills(cli, tmp_path):
    """Killed by SIGKILL at random moments, gone on each time, equal to the closed form to 1e-10."""
    generator, kills = random.Random(7), 0
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "experiment=black_scholes_greeks",
        "shard_rows=65536",
    ]
    while not list(tmp_path.glob("outputs/*/*/*/result.h5")):
        process = subprocess.Popen(
            command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        if kills >= 5:
            assert process.wait(timeout=600) == 0
            break
        before = len(list(tmp_path.rglob("shard-*.h5")))
        while len(list(tmp_path.rglob("shard-*.h5"))) <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 2
    assert not list(tmp_path.rglob("*.tmp"))
    with open_results(result_of(tmp_path)) as results:
        assert results.points == 16**5
        assert results.count("ok") == results.points
        for batch in results.batches(1 << 16):
            expected = greeks(batch["x"].numpy())
            for name, truth in expected.items():
                error = np.abs(batch[name].numpy() - truth).reshape(len(truth), -1).max(axis=1)
                size = np.abs(truth).reshape(len(truth), -1).max(axis=1)
                assert (error <= 1e-10 * np.maximum(size, 1)).all(), name


@pytest.mark.slow
def test_a_wheel_works_from_any_directory(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", ROOT],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*")) / "site-packages"
    # the dependencies of this environment, without the checkout
    dependencies = Path(np.__file__).parent.parent
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel], check=True
    )
    work = tmp_path / "work"
    (work / "my" / "grid").mkdir(parents=True)
    (work / "my" / "grid" / "tiny.yaml").write_text("name: linspace\ncount: 3\n")
    for words in (
        ("experiment=lj13_modes",),
        ("--config-dir", "my", "grid=tiny", "function=ackley", "job=gradient"),
    ):
        done = subprocess.run(
            [python, "-W", "ignore", "-m", "pipeline", *words],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [python, "-c", "import pipeline; print(pipeline.__file__)"],
        cwd=work,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(site) in where.stdout
    assert len(list(work.glob("outputs/*/*/*/result.h5"))) == 2
