"""Two callables share a run only where they compute the same."""

import functools
import importlib
import re
import subprocess
import sys
import threading
import types

import pytest
import torch

import pipeline
from pipeline.errors import ConfigurationError
from pipeline.functions.fingerprint import callable_digest, source_digest
from pipeline.registry import load_file


def scaled(scale):
    return lambda x: (scale * x**2).sum()


def power(x, exponent):
    return (x**exponent).sum()


def named(exponent):
    def f(x):
        return (x**exponent).sum()

    return f


def listed(*tensors):
    return lambda x: sum((tensor * x).sum() * i for i, tensor in enumerate(tensors))


ONE, TWO = torch.ones(2), torch.full((2,), 2.0)
WRAPPED = {
    "torch.func.grad": torch.func.grad,
    "torch.func.hessian": torch.func.hessian,
    "torch.no_grad": torch.no_grad(),
    "torch.compile": torch.compile,
    "argument of torch.func.jacrev": lambda f: torch.func.jacrev(
        power, argnums=f.__closure__[0].cell_contents
    ),
}


def network(seed):
    torch.manual_seed(seed)
    return torch.nn.Linear(2, 1)


def test_what_computes_the_same_has_the_same_digest():
    assert callable_digest(scaled(1.0)) == callable_digest(scaled(1.0))
    assert callable_digest(network(0)) == callable_digest(network(0))
    assert callable_digest(torch.sum) == callable_digest(torch.sum)
    for wrap in WRAPPED.values():
        assert callable_digest(wrap(named(1))) == callable_digest(wrap(named(1)))


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
        (listed(ONE, TWO, ONE), listed(ONE, TWO, TWO)),
        *((wrap(named(0)), wrap(named(1))) for wrap in WRAPPED.values()),
    ],
    ids=[
        "code",
        "number",
        "tensor",
        "container",
        "partial",
        "module",
        "built-in",
        "order",
        *WRAPPED,
    ],
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


WAYS = {
    "method of a class": "class P:\n  def e(self, x): return K * x\ndef f(x): return P().e(x).sum()",
    "static method": "class P:\n  @staticmethod\n  def e(x): return K * x\ndef f(x): return P.e(x).sum()",
    "attribute of a class": "class P:\n  k = K\ndef f(x): return (P.k * x).sum()",
    "property": "class P:\n  @property\n  def k(self): return K\np = P()\ndef f(x): return (p.k * x).sum()",
    "method that a method calls": "class P:\n  def e(self, x): return self.g(x)\n"
    "  def g(self, x): return K * x\nf = P().e",
    "inherited call": "class B:\n  def __call__(self, x): return K * x\nclass P(B): pass\nf = P()",
    "part of an instance": "class B:\n  def g(self, x): return K * x\nclass P:\n  def __init__(self): self.b = B()\n"
    "  def __call__(self, x): return self.b.g(x)\nf = P()",
    "method of a module of torch": "import torch\nclass P(torch.nn.Module):\n  def forward(self, x): return self.g(x)\n"
    "  def g(self, x): return K * x\nf = P()",
    "backward pass": "import torch\nclass S(torch.autograd.Function):\n  @staticmethod\n"
    "  def forward(ctx, x): return x\n  @staticmethod\n  def backward(ctx, g): return K * g\n"
    "def f(x): return S.apply(x)",
    "cached": "import functools\n@functools.cache\ndef k(): return K\ndef f(x): return k() * x",
    "attribute of a function": "def f(x): return f.k * x\nf.k = K",
    "enumeration": "import enum\nclass E(enum.Enum):\n  A = K\ndef f(x): return E.A.value * x",
    "slots": "class P:\n  __slots__ = ('k',)\n  def g(self, x): return K * x\nP.__module__ = __name__\n"
    "def f(x): return P().g(x)",
    "module": "import beside_changing\ndef f(x): return beside_changing.k() * x",
    "module of a module": "import beside_using\ndef f(x): return beside_using.k() * x",
    "module imported within": "def f(x):\n  import beside_changing\n  return beside_changing.k() * x",
    "name imported within": "def f(x):\n  from beside_changing import k\n  return k() * x",
}


def digest_in_a_process(folder, source, k):
    """Of f in a source where K is a number, in a process of its own."""
    (folder / "beside_main.py").write_text(source.replace("K", k))
    (folder / "beside_changing.py").write_text(f"def k(): return {k}\n")
    (folder / "beside_using.py").write_text("from beside_changing import k\n")
    code = "import beside_main, pipeline.functions.fingerprint as p; print(p.callable_digest(beside_main.f))"
    ran = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


OF_FILES = [way for way, source in WAYS.items() if "beside" in source]


@pytest.mark.parametrize("way", OF_FILES)
def test_a_change_in_a_module_of_the_users_is_another_run(way, tmp_path):
    first = digest_in_a_process(tmp_path, WAYS[way], "1.0")
    assert digest_in_a_process(tmp_path, WAYS[way], "2.0") != first


@pytest.mark.parametrize("way", [way for way in WAYS if way not in OF_FILES])
def test_a_change_anywhere_in_the_users_code_is_another_run(way, monkeypatch):
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)  # where instances look for their class

    def digest(k):
        exec(compile(WAYS[way].replace("K", k), "main", "exec"), vars(main))
        return callable_digest(main.f)

    assert digest("1.0") == digest("1.0")
    assert digest("1.0") != digest("2.0")


def test_a_digest_is_the_same_in_every_process(tmp_path):
    ways = ("property", "part of an instance", "slots", "enumeration", "module of a module")
    parts = [re.sub(r"\b([PBEfp])\b", rf"\g<1>{at}", WAYS[way]) for at, way in enumerate(ways)]
    source = "\n".join([*parts, "def f(x): return f0, f1, f2, f3, f4, {'a', 'b'}\n"])
    first = digest_in_a_process(tmp_path, source, "1.0")
    assert digest_in_a_process(tmp_path, source, "1.0") == first


PACKAGE = {
    "relative, within": "def build():\n  from . import part\n  return lambda x: part.K * x",
    "relative, of a package above": "def build():\n  from ..lower import part\n  return lambda x: part.K * x",
    "absolute, of a package": "def build():\n  from PLACE.lower import part\n  return lambda x: part.K * x",
    "at the top": "from .part import K\ndef build():\n  return lambda x: K * x",
    "two steps away": "from . import between\ndef build():\n  return between.f",
}


@pytest.mark.parametrize("digest", [callable_digest, source_digest])
@pytest.mark.parametrize("way", PACKAGE)
def test_a_change_in_a_module_of_a_package_is_another_run(way, digest, tmp_path, monkeypatch):
    place = f"nested_{re.sub('[^a-z]', '_', way)}_{digest.__name__}"
    lower = tmp_path / place / "lower"
    lower.mkdir(parents=True)
    for folder in (lower, lower.parent):
        (folder / "__init__.py").write_text("")
    (lower / "part.py").write_text("K = 1.0\n")
    (lower / "between.py").write_text("from .part import K\ndef f(x): return K * x\n")
    (lower / "main.py").write_text(PACKAGE[way].replace("PLACE", place))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    build = importlib.import_module(f"{place}.lower.main").build
    before = digest(build)
    assert digest(build) == before
    (lower / "unrelated.py").write_text("K = 3.0\n")
    assert digest(build) == before
    (lower / "part.py").write_text("K = 5.0\n")
    for name in [name for name in sys.modules if name.startswith(place)]:
        del sys.modules[name]
    assert digest(importlib.import_module(f"{place}.lower.main").build) != before


def test_a_module_that_a_plugin_imports_late_counts_before_it_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "late_package").mkdir()
    (tmp_path / "late_package" / "deep.py").write_text("K = 1.0\n")
    (tmp_path / "late_main.py").write_text(
        "def build():\n    from late_package import deep\n    return lambda x: (deep.K * x).sum()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    build = importlib.import_module("late_main").build
    before = source_digest(build)
    build()
    assert source_digest(build) == before
    (tmp_path / "late_package" / "deep.py").write_text("K = 5.0\n")
    assert source_digest(build) != before


def test_weights_in_bfloat16_count():
    def of(weights):
        return callable_digest(lambda x: (x * weights).sum())

    one = torch.tensor([1.0, 2.0]).bfloat16()
    assert of(one) == of(one.clone())
    assert of(one) != of(torch.tensor([1.0, 2.015625]).bfloat16())
    assert of(one) != of(one.float())


def test_other_plugins_in_the_folder_make_no_difference(tmp_path):
    (tmp_path / "one.py").write_text("def build():\n    return lambda x: x.sum()\n")
    (tmp_path / "other.py").write_text("")
    before = source_digest(load_file(str(tmp_path / "one.py")).build)
    load_file(str(tmp_path / "other.py"))
    assert source_digest(load_file(str(tmp_path / "one.py")).build) == before


def test_a_module_that_a_plugin_imports_by_a_name_it_makes_up_counts(tmp_path):
    (tmp_path / "made_up_part.py").write_text("K = 1.0\n")
    (tmp_path / "maker.py").write_text(
        "import importlib\nK = importlib.import_module('made_up_' + 'part').K\n"
        "def build():\n    return lambda x: (K * x).sum()\n"
    )
    build = load_file(str(tmp_path / "maker.py")).build
    before = source_digest(build)
    (tmp_path / "made_up_part.py").write_text("K = 5.0\n")
    assert source_digest(build) != before


@pytest.mark.parametrize("module", ["elsewhere_module.py", "elsewhere_package/deep.py"])
def test_a_module_of_the_users_elsewhere_on_the_path_counts(module, tmp_path, monkeypatch):
    library, folder = tmp_path / "library", tmp_path / "plugins"
    (library / module).parent.mkdir(parents=True)
    folder.mkdir()
    (library / module).write_text("K = 1.0\n")
    name = module.removesuffix(".py").replace("/", ".")
    (folder / "mine.py").write_text(
        f"from {name} import K\ndef build():\n    return lambda x: (K * x).sum()\n"
    )
    monkeypatch.syspath_prepend(library)
    build = load_file(str(folder / "mine.py")).build
    before = source_digest(build)
    (library / "unrelated.py").write_text("K = 3.0\n")
    assert source_digest(build) == before
    (library / module).write_text("K = 5.0\n")
    assert source_digest(build) != before


def loaded(tmp_path, monkeypatch, **files):
    """A package of the user's, fresh in every test."""
    place = f"loaded_{len(files)}_{tmp_path.name.replace('-', '_')}"
    (tmp_path / place).mkdir()
    for name, text in files.items():
        (tmp_path / place / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(place)


def test_what_else_of_a_package_is_loaded_makes_no_difference(tmp_path, monkeypatch):
    parts = {"__init__": "def k(): return 2.0\n", "used": "K = 1.0\n", "pictures": "K = 1.0\n"}
    package = loaded(tmp_path, monkeypatch, **parts)
    importlib.import_module(f"{package.__name__}.used")

    def f(x):
        return (package.k() * package.used.K * x).sum()

    digests = [callable_digest(f), callable_digest(lambda x: package)]
    importlib.import_module(f"{package.__name__}.pictures")
    assert [callable_digest(f), callable_digest(lambda x: package)] == digests
    package.pictures.K = 5.0
    assert callable_digest(f) == digests[0]
    package.used.K = 5.0
    assert callable_digest(f) != digests[0]


def test_what_a_function_names_in_a_module_counts_as_it_is_now(tmp_path, monkeypatch):
    text = "import torch\nW = torch.ones(2)\ndef k(): return W\n"
    module = loaded(tmp_path, monkeypatch, __init__=text)
    monkeypatch.setitem(globals(), "held_module", module)
    exec(
        "def f(x): return (held_module.W * x).sum()\ndef g(x): return held_module.k() * x",
        globals(),
    )
    f, g = globals().pop("f"), globals().pop("g")
    before = callable_digest(f), callable_digest(g)
    module.W = 3 * module.W
    assert callable_digest(f) != before[0]
    assert callable_digest(g) != before[1]


class Holding(torch.nn.Module):
    """A module of torch that holds a package."""

    def __init__(self, package):
        super().__init__()
        self.package = package

    def forward(self, x):
        return (self.package.used.K * x).sum()


def test_a_package_that_an_object_holds_counts_with_what_is_named_of_it(tmp_path, monkeypatch):
    parts = {"__init__": "", "used": "K = 1.0\n", "more": "", "rest": ""}
    package = loaded(tmp_path, monkeypatch, **parts)
    importlib.import_module(f"{package.__name__}.used")
    before = callable_digest(Holding(package))
    importlib.import_module(f"{package.__name__}.rest")
    assert callable_digest(Holding(package)) == before
    package.used.K = 5.0
    assert callable_digest(Holding(package)) != before
