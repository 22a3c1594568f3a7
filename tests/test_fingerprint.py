"""Two callables share a run only where they compute the same."""

import functools
import threading

import pytest
import torch

import pipeline
from pipeline.errors import ConfigurationError
from pipeline.fingerprint import callable_digest, source_digest


def scaled(scale):
    return lambda x: (scale * x**2).sum()


def power(x, exponent):
    return (x**exponent).sum()


def network(seed):
    torch.manual_seed(seed)
    return torch.nn.Linear(2, 1)


def test_what_computes_the_same_has_the_same_digest():
    assert callable_digest(scaled(1.0)) == callable_digest(scaled(1.0))
    assert callable_digest(network(0)) == callable_digest(network(0))
    assert callable_digest(torch.sum) == callable_digest(torch.sum)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: (x**2).sum(), lambda x: (x**4).sum()),
        (scaled(1.0), scaled(1.0000001)),
        (scaled(torch.ones(2)), scaled(torch.tensor([1.0, 1.0 + 1e-7]))),
        (scaled({"a": [1, 2]}), scaled({"a": [1, 3]})),
        (functools.partial(power, exponent=2), functools.partial(power, exponent=4)),
        (network(0), network(1)),
        (torch.sum, torch.prod),
    ],
    ids=["code", "number", "tensor", "container", "partial", "module", "built-in"],
)
def test_what_computes_something_else_has_another(one, other):
    assert callable_digest(one) != callable_digest(other)


def test_two_functions_of_one_file_that_agree_at_the_points_are_two_runs(tmp_path):
    x = torch.zeros(1, 2, dtype=torch.float64)
    first = pipeline.run(lambda x: (x**2).sum(), x, "hessian", output_dir=tmp_path)
    second = pipeline.run(lambda x: (x**4).sum(), x, "hessian", output_dir=tmp_path)
    assert first.hessian[0].tolist() == [[2, 0], [0, 2]]
    assert second.hessian[0].tolist() == [[0, 0], [0, 0]]


def test_what_cannot_be_told_is_refused():
    lock = threading.Lock()
    with pytest.raises(ConfigurationError, match="refers to a lock whose value cannot be told"):
        callable_digest(lambda x: (x, lock))


def test_a_module_beside_the_plugin_counts(tmp_path, monkeypatch):
    (tmp_path / "beside_helper.py").write_text("K = 1.0\n")
    (tmp_path / "beside_main.py").write_text(
        "from beside_helper import K\ndef build():\n    return lambda x: (K * x).sum()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import beside_main

    before = source_digest(beside_main.build)
    assert source_digest(beside_main.build) == before
    (tmp_path / "beside_helper.py").write_text("K = 5.0\n")
    assert source_digest(beside_main.build) != before
