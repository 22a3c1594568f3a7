"""Route `compiled`: one graph for a whole batch, equal to the reference whatever the batch."""

import pytest
import torch

import pipeline
from pipeline.autograd import compiler
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.routes import ROUTES
from pipeline.autograd.routes.compiled import MOST_NODES, _shared_operand

WEIGHTS = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)
POINTS = torch.linspace(-1, 2, 28, dtype=torch.float64).reshape(7, 4)
COMPILED = ROUTES["compiled"]


def network(x):
    return torch.tanh(WEIGHTS.to(x) @ torch.tanh(WEIGHTS.to(x).T @ torch.sin(WEIGHTS.to(x) @ x)))


def cluster(x):
    i, j = torch.triu_indices(4, 4, 1)
    return ((x[i] - x[j]) ** 2 + 0.1).pow(-3).sum()


def request(f, orders, dtype=torch.float64):
    return Request(f, POINTS[0].to(dtype), tuple(f(POINTS[0]).shape), orders)


@pytest.mark.parametrize(
    ("f", "mode", "dtype"),
    [
        pytest.param(network, "fwd_over_rev", torch.float64, marks=pytest.mark.slow),
        pytest.param(network, "rev_over_rev", torch.float32, marks=pytest.mark.slow),
        (cluster, "fwd_over_rev", torch.float64),
    ],
)
def test_any_number_of_points_equals_the_reference(f, mode, dtype):
    evaluate = COMPILED.prepare(request(f, (0, 1, 2), dtype), mode, 4, 3)
    for count in (1, 3, 7):
        points = POINTS[:count].to(dtype)
        levels = evaluate(points)
        rows = [derivatives(f, point.double(), 2) for point in points]
        for level, expected in zip(levels, zip(*rows, strict=True), strict=True):
            assert level.dtype == dtype
            tolerance = 1e-12 if dtype == torch.float64 else 1e-4
            expected = torch.stack(expected)
            scale = float(expected.abs().max())
            torch.testing.assert_close(
                level.double(), expected, rtol=tolerance, atol=tolerance * scale
            )


def test_a_product_with_one_operand_for_all_is_one_product():
    batch = torch.randn(3, 2, 4, dtype=torch.float64)
    shared = torch.randn(4, 5, dtype=torch.float64)
    for a, b in (
        (batch, shared.expand(3, 4, 5)),
        (shared.T.expand(3, 5, 4), batch.transpose(1, 2)),
    ):
        torch.testing.assert_close(_shared_operand(a, b), torch.bmm(a, b))
    assert _shared_operand(batch, torch.randn(3, 4, 5).double()) is NotImplemented


def test_the_cost_is_counted():
    once = COMPILED.cost(request(network, (2,)), "rev_over_rev", None, 1 << 30)
    again = COMPILED.cost(request(network, (2,)), "rev_over_rev", None, 1 << 30)
    wider = COMPILED.cost(
        request(lambda x: network(x).repeat(4).sin(), (2,)), "rev_over_rev", None, 1 << 30
    )
    assert once == again
    assert wider.point_seconds > 2 * once.point_seconds


def test_large_graphs_and_large_directions_are_refused():
    def many(x):
        for step in range(MOST_NODES):
            x = torch.sin(x + step)
        return x

    with pytest.raises(RefusedError, match="operations, more than"):
        COMPILED.cost(request(many, (1,)), "rev", None, 1 << 30)
    with pytest.raises(RefusedError, match="do not fit at once"):
        COMPILED.cost(request(network, (2,)), "rev_over_rev", 2, 1 << 30)


def test_without_a_compiler_eager_routes_are_used_and_it_is_said_once(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    for _ in range(2):
        evaluator = pipeline.prepare(cluster, POINTS, "hessian", count=10**9)
        assert evaluator.plan.route == "vmap"
        compiling = ("compiled", "scalar")
        refused = evaluator.plan.refused.items()
        reasons = [reason for name, reason in refused if name.startswith(compiling)]
        assert reasons
        assert {reason[:44] for reason in reasons} == {
            "refused: no C++ compiler 'no-such-compiler' "
        }
    said = [record for record in caplog.records if "no-such-compiler" in record.message]
    assert "Nothing is compiled until then, and long jobs take longer" in caplog.text
    assert [record.levelname for record in said if record.levelname == "WARNING"] == ["WARNING"]


def test_the_cache_is_the_users_and_of_this_kind_of_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler.require_compiler(torch.device("cpu"))
    chosen = compiler.os.environ["TORCHINDUCTOR_CACHE_DIR"]
    assert chosen.startswith(str(tmp_path / "pipeline"))
    monkeypatch.setattr(compiler, "_flags", lambda: "another machine")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    compiler.require_compiler(torch.device("cpu"))
    assert compiler.os.environ["TORCHINDUCTOR_CACHE_DIR"] != chosen


@pytest.mark.parametrize("home", ["/dev/null", None], ids=["not a directory", "not known"])
def test_without_a_home_code_is_kept_as_long_as_the_process_lives(home, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home is None:
        monkeypatch.setattr(compiler.Path, "home", lambda: _raise(RuntimeError("no home")))
    else:
        monkeypatch.setenv("HOME", home)
    kept = []
    monkeypatch.setattr(compiler.atexit, "register", lambda f, path, **_: kept.append(path))
    compiler.require_compiler(torch.device("cpu"))
    chosen = compiler.os.environ["TORCHINDUCTOR_CACHE_DIR"]
    assert [str(path) for path in kept] == [chosen]
    assert compiler.Path(chosen).is_dir()
    compiler.shutil.rmtree(chosen)


def _raise(error):
    raise error
