"""The catalog: what there is, a plugin begun, a plugin checked; as somebody who tries it."""

import json
import re
import signal
import subprocess
import sys

import pytest

from pipeline.autograd.operators import OPERATORS
from pipeline.catalog.__main__ import main
from pipeline.catalog.listing import KINDS
from pipeline.registry import build_registry

HEAD = """
import math
import numpy as np
import torch
from pipeline import AnySize, Function, Scenario, hookimpl
"""
TAIL = """
@hookimpl
def pipeline_functions():
    return [{records}]
"""
COMPLETE = 'source="a book", summary="a sum"'


def plugin(body="return (x**2).sum()", rest=COMPLETE, build="def build():", records=""):
    lines = "\n".join(f"        {line}" for line in body.split("\n"))
    made = f"{HEAD}\n{build}\n    def f(x):\n{lines}\n\n    return f\n"
    return made + TAIL.format(records=records or f'Function("mine", build, n=3, {rest})')


@pytest.fixture
def check(tmp_path, capsys):
    """Check a plugin of this text; gives exit code and what was printed."""

    def run(text, *options):
        path = tmp_path / "mine.py"
        path.write_text(text)
        code = main(["check", str(path), *options])
        seen = capsys.readouterr()
        return code, seen.out + seen.err

    return run


def test_everything_is_listed(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    registry = build_registry()
    for name in (
        *KINDS,
        *registry.functions,
        *registry.grids,
        "lj13_modes",
        "hessian",
        "slurm",
        "vmap",
    ):
        assert name in text
    assert "n = a multiple of 4, at least 4 -> scalar" in text
    assert "n = 7 -> m = 3" in text


def test_one_thing_in_full(capsys):
    assert main(["black_scholes"]) == 0
    text = capsys.readouterr().out
    for words in (
        "one of 'call', 'put', default 'call'",
        "spot, strike",
        "637-654",
        "plugins.finance",
    ):
        assert words in text
    assert main(["executors", "local"]) == 0
    assert "executor.workers" in capsys.readouterr().out
    assert main(["valley"]) == 0  # part of a summary
    assert "rosenbrock" in capsys.readouterr().out


def test_for_programs(capsys):
    assert main(["--json", "functions"]) == 0
    records = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    assert set(records) == set(build_registry().functions)
    assert records["rosenbrock"]["parameters"]["function_params.b"] == "float, default 100.0"
    assert records["rosenbrock"]["facts"]["domain"] == "-2 … 2"


def test_every_operator_has_its_shape(capsys):
    assert main(["--json", "operators"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert {record["name"] for record in records} == {*OPERATORS, "derivative", "all"}
    assert all(record["shape"] for record in records if record["name"] != "all")


def test_a_plugin_of_the_user_is_listed(mine, capsys):
    assert main(["chain", "--plugins", str(mine)]) == 0
    text = capsys.readouterr().out
    assert "Frenkel & Kontorova" in text
    assert str(mine) in text


def test_what_is_not_there(capsys):
    assert main(["rosenbork"]) == 1
    assert (
        "there is no 'rosenbork' in the catalog. Did you mean 'rosenbrock'"
        in capsys.readouterr().err
    )


def test_the_plugin_that_is_begun_passes_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my_function.py"]) == 0
    assert "python -m pipeline.catalog check my_function.py" in capsys.readouterr().out
    assert main(["check", "my_function.py"]) == 0
    text = capsys.readouterr().out
    assert "0 with advice, 0 failed, 0 skipped\n" in text
    assert "none given" not in text
    before = (tmp_path / "my_function.py").read_text()
    assert main(["new", "my_function.py"]) == 1
    assert "my_function.py is there already and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "my_function.py").read_text() == before


@pytest.mark.slow
def test_it_runs_and_its_test_passes(tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my_function.py"]) == 0
    done = cli("function=my_function", "plugins=[./my_function.py]", "grid=random", "grid.count=9")
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "test_my_function.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for file in ("my_function.py", "test_my_function.py"):
        command = [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--isolated",
            "--select",
            "E,F,D,UP",
            file,
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "No module named ruff" in done.stderr or done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-function.py", "expected the name of a Python file, such as my_function.py"),
        ("my_function", "expected the name of a Python file"),
        ("test_mine.py", "expected the name of a Python file"),
        ("rosenbrock.py", "a function 'rosenbrock' is there already"),
        ("nowhere/mine.py", "cannot be written"),
    ],
)
def test_names_that_cannot_be_used(tmp_path, monkeypatch, capsys, name, message):
    monkeypatch.chdir(tmp_path)
    assert main(["new", name]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


OLD_BACKWARD = (
    HEAD
    + """
class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] ** 2 * g


def build():
    return lambda x: Cube.apply(x).sum()
"""
    + TAIL.format(records=f'Function("mine", build, n=3, {COMPLETE})')
)
SCENARIO = f"{COMPLETE}, scenarios=[Scenario((1.0, 2.0, 3.0), {{'value': 13.0}})]"
WRONG = {
    "shape": (plugin("return x**2"), "expected shape (), got (3,) for n = 3 inputs; correct"),
    "declared": (plugin("return x[:2]", f"{COMPLETE}, output_shape=(3,)"), "expected shape (3,), got (2,)"),
    "in place": (plugin("x += 1\nreturn x.sum()"), "the function changes its input in place"),
    "item": (plugin("x[0] = 0\nreturn x.sum()"), "the function changes its input in place"),
    "float": (plugin("return float(x.sum())"), "expected a tensor of shape (), got float"),
    "half float": (plugin("return x.sum() * float(x[0])"), "finite differences differ"),
    "math": (plugin("return math.sin(x[0])"), "no float(), .item(), math or numpy functions"),
    "numpy": (plugin("return np.sin(x).sum()"), "numpy ends differentiation; use torch.sin for np.sin"),
    "nothing returned": (plugin("x.sum()"), "got NoneType None"),
    "detach": (plugin("return (x.detach() * x).sum()"), "look for detach(), .item(), float(), math functions"),
    "dtype": (plugin("return (x * torch.ones(3)).sum().double()"), "make constants by x.new_tensor"),
    "custom backward": (OLD_BACKWARD, "or a custom backward"),
    "random": (plugin("return (x * torch.rand_like(x)).sum()"), "free of randomness and memory"),
    "index": (plugin("return x[5]"), "are n= and the indices right?"),
    "batch": (plugin("return (x[:, 0] ** 2).sum()"), "too many indices for tensor of dimension 1 (line"),
    "not finite": (plugin("return torch.log(x).sum()"), "or say by domain=(…, …) where it is defined"),
    "closed form": (
        plugin(rest=f'{COMPLETE}, closed_form={{"gradient": lambda x: 3 * x}}'),
        "closed form of gradient at (-0.0159369, 0.0347073, 0.695669): got (-0.0478108",
    ),
    "shape of a closed form": (
        plugin(rest=f'{COMPLETE}, closed_form={{"hessian": lambda x: 2 * x}}'),
        "expected shape (3, 3), got (3,)",
    ),
    "name of a closed form": (
        plugin(rest=f'{COMPLETE}, closed_form={{"gradeint": lambda x: 2 * x}}'),
        "'gradeint' is no dataset. Did you mean 'gradient'",
    ),
    "scenario": (plugin(rest=SCENARIO), "off by 1.00e+00"),
    "input names": (plugin(rest='input_names=("a", "b")'), "input_names: expected none or 3, got 2"),
    "domain that ends": (plugin(rest="domain=(2.0, 1.0)"), "ends before it begins"),
    "domain per input": (plugin(rest="domain=((0.0, 1.0), (1.0, 2.0))"), "expected a number or 3 numbers"),
    "domain of one end": (plugin(rest="domain=5.0"), "domain= has to be two ends"),
    "output shape": (plugin(rest="output_shape=3"), "output_shape= has to be (), (m,), (rows, columns), names"),
    "size": (plugin(records='Function("mine", build, n=0)'), "n= has to be a positive number, AnySize"),
    "name": (plugin(records='Function("my f/../x", build, n=3)'), "name= has to be letters, digits and _"),
    "size that raises": (
        plugin(records='Function("mine", build, n=lambda: 1 / 0)'),
        "function 'mine': its n raises with parameters {}: ZeroDivisionError",
    ),
    "syntax": ("def f(:\n", "cannot be imported: SyntaxError: invalid syntax (mine.py, line 1)"),
    "no hook": ("x = 1\n", "has no hook: write `@hookimpl` above `def pipeline_functions()"),
    "unmarked": (plugin().replace("@hookimpl", ""), "pipeline_functions is not marked as a hook"),
    "misspelt": (plugin().replace("pipeline_functions", "pipeline_function"), "did you mean pipeline_functions?"),
    "misspelt, unmarked": (
        plugin().replace("@hookimpl", "").replace("pipeline_functions", "pipeline_function"),
        "pipeline_function is none; did you mean pipeline_functions?",
    ),
    "no record": (HEAD + "@hookimpl\ndef pipeline_functions():\n    pass\n", "got NoneType None"),
    "untyped": (plugin(build="def build(a=1):"), "parameter 'a' of its builder needs a type and a default"),
    "no default": (plugin(build="def build(a: float):"), "parameter 'a' of its builder needs a type"),
    "default": (plugin(build="def build(a: float = 'x'):"), "has the default 'x', which is not float"),
    "keywords": (plugin(build="def build(**all):"), "name every parameter, each with a type and a default"),
    "built at once": (plugin(records='Function("mine", build(), n=3)'), "such as build=build, and not f itself"),
    "twice": (plugin(records="*[Function('mine', build, n=3)] * 2"), "function 'mine' is contributed twice"),
    "taken": (plugin(records='Function("rosenbrock", build, n=3)'), "by 'optimisation (plugins.optimisation)'"),
    "dependency": ("import not_there\n", "install not_there into this environment"),
    "file at import": (HEAD + "torch.load('weights.pt')\n", "'weights.pt' (line 6 of the file)"),
    "file at building": (
        plugin(build="def build():\n    open('weights.pt')"),
        "function 'mine': its build raises with parameters {}: FileNotFoundError",
    ),
    "ends at import": (HEAD + "raise SystemExit(0)\n", "cannot be imported: SystemExit: 0 (line 6 of the file)"),
    "ends at building": (
        plugin(build="def build():\n    raise SystemExit(0)"),
        "its build raises with parameters {}: SystemExit",
    ),
    "builds nothing": (
        plugin(build="def build():\n    pass\n\n\ndef other():"),
        "its build has to return the function of one point, got None",
    ),
    "keyword of the record": (plugin(rest="dimension=3"), "unexpected keyword argument 'dimension'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_so_that_it_can_be_mended(check, name):
    text, message = WRONG[name]
    code, said = check(text)
    assert code == 1, said
    assert message in said
    assert "FAILED" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (plugin(rest="source='s'"), "summary= is empty; say in one line what the function is"),
        (plugin(rest="summary='s'"), "source= is empty; name the paper or book"),
        (plugin(), "give closed_form= or scenarios="),
        (
            plugin("return x.sum() if x[0] > 0 else x.prod()"),
            "jobs go point by point, which is right and slow",
        ),
        pytest.param(
            plugin("import time\ntime.sleep(0.02)\nreturn x.sum()"),
            "s, so that a million take ",
            marks=pytest.mark.slow,
        ),
        (plugin("print('hello')\nreturn x.sum()"), "it prints at every call"),
        (plugin("return x.new_tensor(3.0)"), "does the value depend on x by torch operations?"),
        (
            plugin("return torch.where(x[0] > 0, torch.sqrt(x[0]), x[0]) + x.sum()"),
            "are not finite, and such points",
        ),
    ],
)
def test_advice_fails_nothing(check, text, message):
    code, said = check(text)
    assert code == 0, said
    assert message in said
    assert "hello" not in said


def test_a_check_that_takes_too_long_is_left_out_and_said(check):
    before = signal.getsignal(signal.SIGALRM)
    slow = plugin("time.sleep(0.01)\nreturn (x**2).sum()").replace(HEAD, f"import time\n{HEAD}")
    code, said = check(slow, "--seconds", "0.2")
    assert code == 0, said
    law = "Automatic and extrapolated central differences agree"
    assert re.search(
        rf"skipped +{law}.*\n +not finished within 0.2 s; --seconds 2 gives it more", said
    )
    assert "Empty, single, odd and split batches give the same as the loop." in said  # went on
    assert "0 failed" in said
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_generator_and_several_functions(check):
    two = plugin(records='Function("one", build, n=2), Function("two", build, n=3)')
    code, said = check(two.replace("return [", "yield from ["))
    assert code == 0, said
    assert "function one" in said
    assert "function two" in said
    assert said.count("  -       The derivatives equal") == 4
    assert "by hand: none given\n" in said
    assert said.endswith(", 4 with nothing to check\n")
    one = plugin().replace("return [Function", "return Function").replace(")]", ")")
    assert check(one)[0] == 0
    code, said = check(two, "--function", "two")
    assert "function one" not in said
    code, said = check(two, "--function", "three")
    assert code == 1
    assert "contributes no 'three'. Known: one, two" in said


def grid_plugin(
    rows="return self.shift + torch.arange(a, b).double().outer(torch.ones(2).double())", **other
):
    """A kind of grid in full, with parts that differ."""
    parts = {
        "n": "2",
        "size": "self.count",
        "spec": '{"count": self.count, "shift": self.shift}',
        "axes": "None",
        "build": "return Mine(count, shift)",
        "option": "shift: float = 0.0",
        **other,
    }
    return """
import torch
from pipeline import Grid, GridKind, hookimpl
from pipeline.errors import GridError

class Mine(Grid):
    def __init__(self, count, shift):
        if not (count > 0 and abs(shift) < 1e9):
            raise GridError(f"expected count > 0 and a finite shift, got {{count}} and {{shift}}; correct them")
        self.count, self.shift = count, shift

    n = {n}
    axes = {axes}

    def __len__(self):
        return {size}

    @property
    def spec(self):
        return {spec}

    def rows(self, a, b):
        {rows}

def build(space, /, count: int = 8, {option}):
    {build}

@hookimpl
def pipeline_grids():
    return [GridKind("mine", build)]
""".format(rows=rows, **parts)


def test_a_plugin_of_grids(check):
    code, said = check(grid_plugin())
    assert code == 0, said
    assert "grid mine\n" in said
    assert "9 ok, 0 with advice, 0 failed, 0 skipped" in said
    code, said = check(grid_plugin(), "--set", "count=3", "shift=1e99", "--only", "mine")
    assert code == 1
    assert "expected count > 0 and a finite shift, got 3 and 1e+99" in said
    code, said = check(grid_plugin(), "--set", "shfit=1")
    assert "grid.shfit is unknown. Did you mean 'shift'?" in said


WRONG_GRIDS = {
    "float32": (grid_plugin("return torch.zeros(b - a, 2)"), "expected float64, got torch.float32: digits are"),
    "shape": (grid_plugin("return torch.zeros(b - a, 3).double()"), "expected shape (0, 2), got (0, 3)"),
    "no tensor": (grid_plugin("return [[0.0, 0.0]] * (b - a)"), "expected shape (0, 2), got list"),
    "not finite": (grid_plugin("return torch.full((b - a, 2), torch.nan).double()"), "a point is not finite: (nan"),
    "raises": (grid_plugin("return 1 / 0"), "ZeroDivisionError: division by zero (line "),
    "random": (grid_plugin("return torch.rand(b - a, 2).double()"), "seeded by space.seed and the index"),
    "range": (
        grid_plugin("return torch.linspace(0, 1, b - a).double().outer(torch.ones(2).double())"),
        "compute each from its index alone",
    ),
    "spec": (grid_plugin(spec='{"count": self.count}'), "with grid.shift=1.0 the points are others, and spec is"),
    "spec of a tensor": (grid_plugin(spec='{"shift": torch.zeros(2)}'), "spec holds tensor([0., 0.]); use numbers"),
    "axes": (grid_plugin(axes="(torch.zeros(3), torch.zeros(3))"), "shape: expected (3, 3), got (8,)"),
    "empty": (grid_plugin(size="0"), "its len() has to be a whole number, at least 1, got 0"),
    "size": (grid_plugin(n="2.0"), "its n has to be a whole number, at least 1, got 2.0"),
    "nothing": (grid_plugin(build="Mine(count, shift)"), "has to return a pipeline.Grid, got NoneType None"),
    "builder": (grid_plugin(build="return Mine(count)"), "it raises with options {'count': 8, 'shift': 0.0}: TypeE"),
    "untyped": (grid_plugin(option="shift=0.0"), "parameter 'shift' of its builder needs a type and a default"),
    "parts": (grid_plugin().replace("def rows", "def row"), "instantiate abstract class Mine with"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_GRIDS)
def test_what_is_wrong_with_a_grid_is_said(check, name):
    text, message = WRONG_GRIDS[name]
    code, said = check(text)
    assert code == 1, said
    assert message in said
    assert "Traceback" not in said


def test_options_out_of_range_are_advice(check):
    code, said = check(grid_plugin().replace("raise GridError(f", "raise ValueError(f"))
    assert code == 0, said
    assert "grid.count=0: grid 'mine': it raises with options" in said
    assert "raise pipeline.errors.GridError with words for users" in said
    code, said = check(grid_plugin().replace(" and abs(shift) < 1e9", ""))
    assert "grid.shift=nan gives points that are not finite; refuse it" in said


@pytest.mark.slow
def test_a_grid_that_raises_in_a_run_is_named(cli, tmp_path):
    words = ("function=beale", "plugins=[./mine.py]", "grid=plugin", "grid.name=mine")
    for text, message in (
        (grid_plugin("return 1 / 0"), "grid Mine: its rows(0, "),
        (grid_plugin("return [[1.0, 2.0]] * (b - a)"), "has to give points of shape"),
        (grid_plugin(build="return 1 / 0"), "grid 'mine': it raises with options"),
    ):
        (tmp_path / "mine.py").write_text(text)
        done = cli(*words)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_size_of_the_user(check):
    sized = plugin(records='Function("mine", build, n=AnySize(2, minimum=2))')
    assert check(sized, "--n", "5")[0] == 0
    code, said = check(sized, "--n", "1")
    assert code == 1
    assert "needs n = at least 2; the points have n = 1" in said


@pytest.mark.slow
def test_from_the_shell(cli, tmp_path):
    (tmp_path / "mine.py").write_text(WRONG["shape"][0])
    done = cli("check", "./mine.py", module="pipeline.catalog")
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert cli("routes", module="pipeline.catalog").returncode == 0


def test_list_is_another_word_for_the_whole(capsys):
    assert main(["list"]) == 0
    whole = capsys.readouterr().out
    assert main([]) == 0
    assert capsys.readouterr().out == whole
    assert "a few coloured directions in place of all, eager or compiled\n" in whole
