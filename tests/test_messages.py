"""No message without a test: what the package raises, collects, warns of and logs is provoked and says what to do.

`support/messages.py` reads the texts from the source. Most are provoked by the tests of their module; the rest
stands here.
"""

import ast
from types import MappingProxyType

import numpy as np
import pytest
import torch
from support.messages import ROOT, Message, is_expected, messages, unexpected

import pipeline
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.routes.scalar import derive
from pipeline.errors import (
    DisagreementError,
    ExecutorError,
    FunctionError,
    GridError,
    MemoryBudgetError,
    PipelineError,
    PluginError,
    StoreError,
    one_line,
)
from pipeline.grids.base import Grid
from pipeline.grids.file import build_file
from pipeline.grids.kind import Space
from pipeline.grids.product import build_linspace
from pipeline.grids.quasi import build_sobol
from pipeline.registry import Registry
from pipeline.store.arrays.buffers import as_numpy
from pipeline.store.layout import Layout
from pipeline.store.writing.shard import new_shard

X = torch.tensor([[0.3, -0.2, 0.7, 1.1], [0.4, 0.1, -0.6, 0.9]], dtype=torch.float64)

# what is provoked only by machines that the tests do not have, or cannot happen while the code is right
ELSEWHERE = {
    "deriving it takes too many steps": "hours of derivation",
    "it is written for CPUs, the job runs on …": "a GPU",
    "it applies … to numbers": "torch refuses it first",
    "it chooses by numbers, not by truth values": "torch refuses it first",
    "it mixes truth values and numbers in …": "torch promotes them first",
    "it reduces an empty tensor": "torch refuses it first",
    "one point needs … bytes, more than the memory budget of …": "routes that count refuse it first",
    "it has no rule for …": "a contraction that is written and not derived",
    "every worker that was to plan the run was lost; the last one: …": "tests/cluster",
    "the run was stopped": "a race of two threads",
    "Slurm job …: …; log: …": "tests/cluster: its words are Slurm's",
    "…: … …: …": "its words are filled in: tests/store/sweeps, unfinished runs",
    "…: …": "torch's own words: tests/autograd/planning/test_by_differences.py",
    "… but …; …": "all of its words are filled in: test_provoked, sizes",
    "…, got … …": "its words are filled in: test_provoked, buffer",
    "…, got … …: …": "a tensor that NumPy cannot share: test_provoked, sparse buffer",
}


def test_every_message_has_a_test():
    lost = [message for message in unexpected() if "…".join(message.pieces) not in ELSEWHERE]
    listed = "\n".join(f"  {message}" for message in lost)
    assert not lost, f"write a test that provokes each of these and names its text:\n{listed}"


def test_a_new_message_would_be_found():
    text = " ".join(["qwx", "zvyk", "plomf", "gruntle"])
    assert not is_expected(Message("somewhere.py:1", "StoreError", (text, f"; {text[::-1]}")))
    assert is_expected(
        Message("somewhere.py:1", "StoreError", ("plugin ", " has no hook: ", "write"))
    )


def test_every_message_is_a_sentence_of_its_own():
    for message in messages():
        text = "…".join(message.pieces)
        assert "Traceback" not in text
        assert not text.endswith("."), message
        assert message.error not in ("Exception", "RuntimeError", "AssertionError"), message


def test_no_error_is_swallowed_without_a_word():
    """`except Exception` is followed by something that uses the error, or a comment on why not."""
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        lines = path.read_text().splitlines()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and all(
                isinstance(n, ast.Pass) for n in node.body
            ):
                assert any("#" in line for line in lines[node.lineno - 1 : node.end_lineno]), path


class Wrong(Grid):
    """A grid that gives one column too many."""

    n = 2
    spec = MappingProxyType({})

    def __len__(self):
        return 3

    def rows(self, start, stop):
        return torch.zeros(stop - start, 3)


class Raising:
    @pipeline.hookimpl
    def pipeline_functions(self):
        raise KeyError("lost")


class WrongArgument:
    @pipeline.hookimpl
    def pipeline_run_started(self, runn):
        pass


def scalar(f):
    return lambda: derive(Request(f, X[0], (), (0, 1)))


def exhausted():
    calls = []

    def f(x):
        if len(calls) > 1:
            raise MemoryError("no more")
        return (x**2).sum()

    evaluator = pipeline.prepare(f, X, "gradient", route="loop")
    calls.extend([1, 2])
    evaluator.guarded(X)


def unfinished(tmp_path):
    results = pipeline.run("rosenbrock", X, "gradient", output_dir=tmp_path)
    with results:
        return pipeline.open_sweep(tmp_path, nothing_of_this_name=3)


PROVOKED = {
    "no route": (
        DisagreementError, "no route can differentiate this function:",
        lambda: pipeline.prepare(lambda x: torch.det(x.reshape(2, 2)), X, "gradient", route="scalar"),
    ),
    "memory": (
        MemoryBudgetError, "no route fits into memory:(.|\n)*more than the memory budget of",
        lambda: pipeline.prepare(lambda x: (x**2).sum(), X, "hessian", memory=10),
    ),
    "memory of the loop": (
        MemoryBudgetError, "set memory= higher or ask for less per point",
        lambda: pipeline.prepare(lambda x: (x**2).sum(), X, "hessian", memory=10, route="loop"),
    ),
    "memory at a point": (
        MemoryBudgetError, "memory ran out at a single point with chunk=.*; set a smaller chunk= or memory=",
        exhausted,
    ),
    "points of an evaluator": (
        PipelineError, "points do not fit this evaluator; dtype: prepared for torch.float64, got torch.float32",
        lambda: pipeline.prepare(lambda x: (x**2).sum(), X, "gradient")(X.float()),
    ),
    "random": (RefusedError, "it is random: aten", scalar(lambda x: (x * torch.rand_like(x)).sum())),
    "clamp": (
        RefusedError, "the bounds of a clamp depend on the point",
        scalar(lambda x: torch.clamp(x, min=x.flip(0)).sum()),
    ),
    "grid": (
        GridError, r"grid Wrong has to give points of shape \(2, 2\) for \[0:2\], got \(2, 3\); correct its rows",
        lambda: Wrong()[0:2],
    ),
    "count": (
        GridError, "grid.count is 9223372036854775808; at most .* points can be numbered, give fewer",
        lambda: build_sobol(Space(2), count=2**63),
    ),
    "axes": (
        GridError, "grid.count makes about .* at most .* can be numbered; give fewer points per axis",
        lambda: build_linspace(Space(10**5), count=101),
    ),
    "sizes": (
        GridError, "grid.lower has 3 entries but the function takes n = 2 inputs; give 2 entries",
        lambda: build_linspace(Space(2), lower=[1.0, 2.0, 3.0]),
    ),
    "hook that raises": (
        PluginError, "plugin 'it': pipeline_functions raised KeyError: 'lost'",
        lambda: Registry.of({"it": Raising()}),
    ),
    "argument of a hook": (
        PluginError, "plugin 'it' cannot be used: Plugin 'it' for hook 'pipeline_run_started'.*runn",
        lambda: Registry.of({"it": WrongArgument()}),
    ),
    "buffer": (
        StoreError, r"x: the buffer has to be float64 \(2, 4\), got float32 \(2, 4\)",
        lambda: as_numpy(np.zeros((2, 4), "f4"), "x", (2, 4), np.dtype("f8")),
    ),
    "sparse buffer": (
        StoreError, r"x: the buffer has to be float64 \(2, 4\), got torch.float64 \(2, 4\): ",
        lambda: as_numpy(X.to_sparse(), "x", (2, 4), np.dtype("f8")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROVOKED)
def test_provoked(name):
    error, text, provoke = PROVOKED[name]
    with pytest.raises(error, match=text):
        provoke()


def test_a_plan_that_says_no_number_of_points(tmp_path):
    pipeline.run("rosenbrock", X, "gradient", output_dir=tmp_path).close()
    (plan,) = tmp_path.glob("*/*/*/run.json")
    plan.write_text(plan.read_text().replace('"points": 2', '"points": 0'))
    (plan.parent / "result.h5").unlink()
    with pytest.raises(StoreError, match="points is 0"):
        pipeline.open_results(plan.parent)


def test_a_dataset_of_a_file_that_is_not_there(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    text = "grid.dataset is not given and there is no 'x'; set grid.dataset to one of a, b"
    with pytest.raises(GridError, match=text):
        build_file(Space(2), path=str(tmp_path / "two.npz"))


def test_a_module_that_cannot_be_copied():
    class Stubborn(torch.nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("not me")

    with pytest.raises(
        FunctionError,
        match=r"cannot be copied \(TypeError: not me\); give a function that calls it instead",
    ):
        pipeline.evaluate(Stubborn(4, 1), X, "jacobian")


def test_a_scheduler_that_is_not_there():
    pytest.importorskip("distributed")
    from pipeline.executors.dask import DaskExecutor

    def refuse():
        raise OSError("timed out")

    with (
        pytest.raises(
            ExecutorError, match="no Dask scheduler answers: timed out; check executor.address"
        ),
        DaskExecutor(refuse, 1),
    ):
        pass


def test_a_shard_of_too_few_points(tmp_path):
    layout = Layout(2, (), (("value", 0),), "float64", "too few")
    with (
        pytest.raises(StoreError, match="a shard of 5 points was given 0; it is not kept"),
        new_shard(tmp_path / "shard.h5", layout, 5, {"run_id": "x", "start": 0, "stop": 5}),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_fact_that_no_run_has(tmp_path):
    with pytest.raises(StoreError, match="no run below .* has 'nothing_of_this_name'. Known: "):
        unfinished(tmp_path)


def test_the_words_of_another_error_are_part_of_a_sentence():
    assert one_line(NotImplementedError("the derivative.\n  is not\tthere.")) == (
        "the derivative. is not there"
    )
