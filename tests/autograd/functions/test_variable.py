"""What is differentiated: the point, some of its columns, parameters of a module."""

import itertools

import numpy as np
import pytest
import torch

import pipeline
from pipeline.autograd.functions.module_function import ModuleFunction
from pipeline.autograd.functions.probe import probe_indices
from pipeline.autograd.functions.variable import Columns, Parameters, WholePoint, resolve_variable
from pipeline.autograd.planning.asked import Asked, Wanted
from pipeline.autograd.planning.planner import prepare
from pipeline.autograd.reference import jacobian
from pipeline.autograd.request import Request
from pipeline.autograd.routes import ROUTES
from pipeline.errors import ConfigurationError, DisagreementError, FunctionError
from pipeline.grids.file import build_file
from pipeline.grids.kind import Space
from pipeline.job import Options

GENERATOR = torch.Generator().manual_seed(7)
POINTS = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)


def coupled(x):  # a scalar in which every pair of columns is coupled
    return x[0] ** 2 * x[1] + torch.sin(x[1] * x[2]) + torch.exp(0.3 * x[2] * x[0])


def coupled_hessian(x):
    """Written out by hand, all columns."""
    a, b, c = x.tolist()
    s, k = np.sin(b * c), np.cos(b * c)
    e = np.exp(0.3 * a * c)
    mixed_bc = k - b * c * s
    mixed_ac = 0.3 * e * (1 + 0.3 * a * c)
    return torch.tensor(
        [
            [2 * b + 0.09 * c * c * e, 2 * a, mixed_ac],
            [2 * a, -c * c * s, mixed_bc],
            [mixed_ac, mixed_bc, -b * b * s + 0.09 * a * a * e],
        ],
        dtype=torch.float64,
    )


def network(dtype=torch.float64):
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).to(
        dtype
    )


def by_hand(module, x):
    """Jacobian of the network with respect to its parameters, by the chain rule."""
    first, _, last = module
    h = torch.tanh(first.weight @ x + first.bias)
    back = last.weight * (1 - h**2)  # (2, 4)
    parts = [
        torch.einsum("mi,j->mij", back, x).reshape(2, -1),
        back,
        torch.einsum("mk,i->mki", torch.eye(2, dtype=x.dtype), h).reshape(2, -1),
        torch.eye(2, dtype=x.dtype),
    ]
    return torch.cat(parts, dim=1).detach()


def request(f, points, wrt, orders, shape):
    variable = resolve_variable(wrt, f, points.shape[1])
    return Request(f, points[0], shape, orders, variable)


ROUTE_MODES = [("loop", "rev_over_rev"), ("scalar", "rev_over_rev")] + [
    ("vmap", "_over_".join(mode)) for mode in itertools.product(("fwd", "rev"), repeat=2)
]


@pytest.mark.parametrize(("route", "mode"), ROUTE_MODES)
def test_columns_on_every_route(route, mode):
    asked = request(coupled, POINTS, (2, 0), (1, 2), ())
    gradient, hessian = ROUTES[route].prepare(asked, mode, 2, 4)(POINTS)
    for row, point in enumerate(POINTS):
        expected = coupled_hessian(point)[[2, 0]][:, [2, 0]]
        assert torch.allclose(hessian[row], expected, rtol=1e-12, atol=1e-12)
        leaf = point.clone().requires_grad_()
        whole = jacobian(coupled(leaf), leaf)
        assert torch.allclose(gradient[row], whole[[2, 0]], rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_columns_and_parameters_compiled():
    asked = request(coupled, POINTS, (2, 0), (2,), ())
    (hessian,) = ROUTES["compiled"].prepare(asked, "fwd_over_rev", 2, 6)(POINTS)
    expected = torch.stack([coupled_hessian(x)[[2, 0]][:, [2, 0]] for x in POINTS])
    assert torch.allclose(hessian, expected, rtol=1e-11, atol=1e-12)
    f = ModuleFunction(network())
    asked = request(f, POINTS, "parameters", (1,), (2,))
    (seen,) = ROUTES["compiled"].prepare(asked, "rev", 30, 6)(POINTS)
    assert torch.allclose(seen, torch.stack([by_hand(f.module, x) for x in POINTS]), atol=1e-13)


@pytest.mark.parametrize(
    ("route", "mode"), [("loop", "rev"), ("scalar", "rev"), ("vmap", "fwd"), ("vmap", "rev")]
)
def test_parameters_on_every_route(route, mode):
    f = ModuleFunction(network())
    asked = request(f, POINTS, "parameters", (1,), (2,))
    (seen,) = ROUTES[route].prepare(asked, mode, 30, 6)(POINTS)
    assert torch.allclose(seen, torch.stack([by_hand(f.module, x) for x in POINTS]), atol=1e-13)


def test_per_sample_jacobians_of_a_module_without_changing_it():
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result = pipeline.evaluate(module, POINTS, "jacobian", wrt="parameters")
    assert result.jacobian.shape == (6, 2, 26)
    expected = torch.stack([by_hand(module, x) for x in POINTS])
    assert torch.allclose(result.jacobian, expected, atol=1e-13)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert result.certificate.finite_difference_checks > 0


def test_some_parameters_by_name_and_by_part():
    module = network()
    whole = torch.stack([by_hand(module, x) for x in POINTS])
    weight = pipeline.evaluate(module, POINTS, "jacobian", wrt=["2.weight", "0.bias"])
    expected = torch.cat([whole[..., 16:24], whole[..., 12:16]], dim=-1)
    assert torch.allclose(weight.jacobian, expected, atol=1e-13)
    part = pipeline.evaluate(module, POINTS, "jacobian", wrt="2")
    assert torch.allclose(part.jacobian, whole[..., 16:], atol=1e-13)


def test_a_float32_module_is_checked_in_float64():
    module = network(torch.float32)
    result = pipeline.evaluate(module, POINTS.float(), "jacobian", wrt="parameters")
    assert result.jacobian.dtype == torch.float32
    assert "float64" in result.certificate.reference
    expected = torch.stack(
        [by_hand(network(torch.float32).double(), x.double()) for x in POINTS.float()]
    )
    assert (result.jacobian - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_losses_with_labels_in_the_points():
    module = network()
    labels = torch.tensor([[0.0], [1.0], [1.0], [0.0], [1.0], [0.0]], dtype=torch.float64)

    def loss(module, row):
        target = row[3:].long()
        return torch.nn.functional.cross_entropy(module(row[:3])[None], target)

    f = ModuleFunction(module, call=loss)
    result = pipeline.evaluate(f, torch.cat([POINTS, labels], 1), "gradient", wrt="parameters")
    for row, point in enumerate(POINTS):
        residual = torch.softmax(module(point), 0)
        residual[int(labels[row])] -= 1
        expected = residual.detach() @ by_hand(module, point)
        assert torch.allclose(result.gradient[row], expected, atol=1e-13)


def test_held_columns_are_neither_differentiated_nor_moved():
    def f(row):  # a label that must be an integer
        if row[2] not in (0, 1):
            raise ValueError("not a label")
        return row[0] ** 3 + row[1] if row[2] == 1 else row[0] * row[1]

    points = torch.tensor([[2.0, 1.0, 1.0], [3.0, 4.0, 0.0]], dtype=torch.float64)
    result = pipeline.evaluate(f, points, "gradient", wrt=[0, 1])
    assert result.gradient.tolist() == [[12, 1], [4, 3]]
    assert result.status.tolist() == [1, 1]  # a comparison of what is held is no kink
    assert result.certificate.finite_difference_checks == 2


def test_labels_of_a_file_are_neither_differentiated_nor_moved(tmp_path):
    table = tmp_path / "points.csv"
    table.write_text("kind,a,b\n1,2.0,1.0\n0,3.0,4.0\n1,0.5,-1.0\n")

    def f(row):
        a, b = row[1:]
        return a**3 + b if int(row[0]) == 1 else a * b

    grid = build_file(Space(n=3), path=str(table))
    with pipeline.run(f, grid, "hessian", wrt=[1, 2], output_dir=tmp_path / "out") as results:
        assert results.x[:].tolist() == [[1, 2, 1], [0, 3, 4], [1, 0.5, -1]]
        assert results.hessian[:].tolist() == [
            [[12, 0], [0, 0]],
            [[0, 1], [1, 0]],
            [[3, 0], [0, 0]],
        ]
        assert results.status[:].tolist() == [1, 1, 1]
    by_name = build_file(Space(n=3), path=str(table), columns=["b", "a", "kind"])
    seen = pipeline.evaluate(
        lambda row: row[0] * row[1] ** 2 * row[2], by_name, "gradient", wrt=[1]
    )
    assert seen.gradient.tolist() == [[4.0], [0.0], [-1.0]]


def test_the_wrong_derivative_of_a_parameter_is_found():
    class Stopped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, x):
            return (self.scale.detach() * self.scale * x).sum()

    with pytest.raises(DisagreementError, match="automatic and finite differences differ"):
        pipeline.evaluate(Stopped(), POINTS, "gradient", wrt="parameters")
    assert pipeline.evaluate(Stopped(), POINTS, "gradient").gradient[0].tolist() == [4, 4, 4]


def test_what_is_stored_says_what_was_differentiated(tmp_path):
    f = ModuleFunction(network())
    with pipeline.run(f, POINTS, "jacobian", wrt="2", output_dir=tmp_path) as results:
        assert results.jacobian.dims == ("point", "output", "variable")
        assert results.x.dims == ("point", "input")
        assert results.names_along("variable")[:2] == ["2.weight[0,0]", "2.weight[0,1]"]
        data = results.to_xarray()
        assert float(data.jacobian.sel(variable="2.bias[1]")[0, 1]) == 1.0
        expected = torch.stack([by_hand(f.module, x) for x in POINTS])[..., 16:]
        assert np.allclose(results.jacobian[:], expected)
        path = results.path
    assert not pipeline.verify(path, function=network()).faults
    with pipeline.run(f, POINTS, "jacobian", output_dir=tmp_path) as whole:
        assert whole.path != path
        assert whole.jacobian.dims == ("point", "output", "input")
    with pipeline.run(coupled, POINTS, "hessian", wrt=[2, 0], output_dir=tmp_path) as some:
        assert some.hessian.attrs["symmetric"] == "variable variable_2"
        assert not pipeline.verify(some.path, function=coupled).faults


@pytest.mark.slow
def test_on_the_command_line(cli, tmp_path):
    (tmp_path / "held.py").write_text(
        "import torch\nfrom pipeline import Function, hookimpl\n\n"
        "def build():\n    return lambda x: x[0] ** 2 * x[1] + x[2] ** 3\n\n"
        "def module():\n    torch.manual_seed(0)\n    return torch.nn.Linear(3, 1).double()\n\n"
        "@hookimpl\ndef pipeline_functions():\n"
        "    return [Function('held', build, n=3, input_names=['a', 'b', 'c']),\n"
        "            Function('line', module, n=3, output_shape=(1,))]\n"
    )
    common = ("plugins=[./held.py]", "grid=random", "grid.count=5")
    done = cli("job=gradient", "function=held", "wrt=[c,a]", *common)
    assert done.returncode == 0, done.stderr
    with pipeline.open_results(next((tmp_path / "outputs/gradient/held").iterdir())) as results:
        x = results.x[:]
        expected = np.stack([3 * x[:, 2] ** 2, 2 * x[:, 0] * x[:, 1]], 1)
        assert np.allclose(results.gradient[:], expected, rtol=1e-13)
        assert results.names_along("variable") == ["c", "a"]
        assert not pipeline.verify(results.path).faults
    done = cli("job=jacobian", "function=line", "wrt=parameters", *common)
    assert done.returncode == 0, done.stderr
    with pipeline.open_results(next((tmp_path / "outputs/jacobian/line").iterdir())) as results:
        assert np.array_equal(results.jacobian[:, 0, :3], results.x[:])
    done = cli("job=gradient", "function=held", "wrt=[d]", *common)
    assert done.returncode != 0
    assert "wrt: nothing is called 'd'. Known: a, b, c, inputs" in done.stderr
    assert cli("job=gradient", "function=held", "wrt=1.5", *common).returncode != 0


@pytest.mark.parametrize(
    ("wrt", "message"),
    [
        ("parameters", "wrt='parameters' needs a module with parameters"),
        ("paramters", "nothing is called 'paramters'"),
        ([0, 0], "some columns of the points, each once, got"),
        ([], "some columns of the points, each once, got"),
        ([3], "index of a column from 0 to 2, got 3"),
    ],
)
def test_what_is_not_there_cannot_be_differentiated(wrt, message):
    with pytest.raises(ConfigurationError, match=message):
        pipeline.evaluate(coupled, POINTS, "gradient", wrt=wrt)


def test_names_of_parameters_are_suggested():
    with pytest.raises(ConfigurationError, match=r"Did you mean '2.weight' or '0.weight'\?"):
        pipeline.evaluate(network(), POINTS, "jacobian", wrt="2.weigth")


def test_all_columns_are_the_point():
    assert isinstance(resolve_variable([0, 1, 2], coupled, 3), WholePoint)
    assert resolve_variable([-1, "a"], coupled, 3, ("a", "b", "c")) == Columns((2, 0))
    assert isinstance(resolve_variable("0", network_function(), 3), Parameters)


def network_function():
    return ModuleFunction(network())


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (torch.nn.Dropout(0.5), "is random"),
        (torch.nn.BatchNorm1d(3), "mixes the points of a batch"),
        (torch.nn.LSTM(3, 2, num_layers=2, dropout=0.1), "is random"),
    ],
)
def test_a_module_in_training_mode_is_refused_where_that_matters(module, reason):
    with pytest.raises(FunctionError, match=f"in training mode, where it {reason}.*eval"):
        pipeline.evaluate(torch.nn.Sequential(module), POINTS, "jacobian")


def test_a_module_that_cannot_be_copied_is_refused():
    class Locked(torch.nn.Module):
        def __deepcopy__(self, memo):
            raise TypeError("one of a kind")

    with pytest.raises(FunctionError, match="Locked cannot be copied .TypeError: one of a kind"):
        ModuleFunction(Locked())


def test_a_prepared_evaluator_keeps_the_parameters_it_was_made_with():
    module = network()
    evaluator = pipeline.prepare(module, POINTS, "jacobian", count=6)
    before = evaluator(POINTS)
    with torch.no_grad():
        module[0].weight.mul_(2)
    assert torch.equal(evaluator(POINTS), before)


def test_plain_tensors_of_a_module_are_converted_as_well():
    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = torch.tensor([0.1, 0.2, 0.3])
            self.register_buffer("count", torch.tensor(2))

        def forward(self, x):
            return (torch.dot(x, self.shift) + x.sum()) * self.count

    result = pipeline.evaluate(Shifted(), POINTS, "gradient")
    assert torch.allclose(result.gradient[0], 2 * (1 + torch.tensor([0.1, 0.2, 0.3]).double()))


def test_planner_takes_the_variable():
    asked = Asked(coupled, "coupled", Wanted(("gradient",)), variable=Columns((1,)))
    evaluator = prepare(asked, POINTS, Options(), 6)
    assert evaluator(POINTS).shape == (6, 1)


class Product(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(1.0, 9.0, dtype=torch.float64).reshape(2, 4))

    def forward(self, x):
        return self.weight**2 @ x


def test_the_pattern_of_parameters_does_not_depend_on_the_points_tried():
    points = torch.ones(40, 4, dtype=torch.float64)
    points[probe_indices(40), 2] = 0  # no derivative by the third column of the weights there
    evaluator = pipeline.prepare(
        Product(), points, "jacobian", wrt="parameters", format="sparse", count=40
    )
    found = evaluator.pattern.to_dense(evaluator(points)).reshape(40, 2, 2, 4)
    weight = torch.arange(1.0, 9.0, dtype=torch.float64).reshape(2, 4)
    expected = torch.einsum("bj,ik,ij->bikj", points, torch.eye(2).double(), 2 * weight)
    assert torch.allclose(found, expected)


def test_weights_from_files(tmp_path):
    from safetensors.torch import save_file

    module, other = network(), network()
    state = {name: 2 * value for name, value in module.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    expected = torch.stack([by_hand(other, x) for x in POINTS])
    for weights in (state, tmp_path / "w.pt", str(tmp_path / "w.safetensors")):
        f = pipeline.module_function(module, weights=weights)
        seen = pipeline.evaluate(f, POINTS, "jacobian", wrt="parameters").jacobian
        assert torch.allclose(seen, expected, atol=1e-13)
    assert torch.equal(module[0].weight, network()[0].weight)


def test_the_mode_can_be_said():
    module = torch.nn.Sequential(torch.nn.Linear(3, 1).double(), torch.nn.Dropout(0.5))
    f = pipeline.module_function(module, mode="eval")
    assert torch.equal(pipeline.evaluate(f, POINTS, "jacobian").jacobian[0], module[0].weight)
    assert module.training
    with pytest.raises(FunctionError, match="in training mode"):
        pipeline.module_function(module.eval(), mode="train")


class Hostile:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.npz", b"", "expected a file .safetensors, .pt or .pth, got w.npz"),
        ("none.pt", None, "cannot be read"),
        ("w.pt", b"no archive", "is no state dict of tensors"),
        ("w.safetensors", b"no archive", "is no state dict of tensors"),
        ("other.pt", {"weight": torch.ones(2)}, "are not those of this Sequential"),
        ("hostile.pt", {"weight": Hostile()}, "is no state dict of tensors.*[Ww]eights"),
    ],
)
def test_weights_that_are_none_are_refused(name, content, message, tmp_path, capsys):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(FunctionError, match=f"(?s){message}"):
        pipeline.module_function(network(), weights=tmp_path / name)
    assert "executed" not in capsys.readouterr().out
