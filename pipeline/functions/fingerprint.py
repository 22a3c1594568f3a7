"""What a callable computes, as a digest: its code, and every value that the code refers to."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import pickle
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from pipeline.errors import ConfigurationError
from pipeline.functions.files_read import INSTALLED
from pipeline.functions.imports import files_imported, imports_by_name, modules_imported


def source_digest(build: Callable[..., Any]) -> str:
    """SHA-256 of the source file that defines a callable, and of the user's modules that it uses.

    Args:
        build: Any Python callable.

    Returns:
        Hexadecimal digest; of the code itself where there is no file, as in a notebook.
    """
    while isinstance(build, functools.partial):
        build = build.func
    path = source_file(build)
    if path is None:
        return callable_digest(build)
    module = getattr(build, "__module__", None) or ""
    files = files_imported(path, path.parents[min(module.count("."), len(path.parents) - 1)])
    if "." not in module and any(map(imports_by_name, files)):
        files |= _modules_beside(path.parent)
    digests = (hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files))
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def source_file(build: Callable[..., Any]) -> Path | None:
    """Find the source file that defines a callable.

    Args:
        build: Any Python callable.

    Returns:
        Its resolved path; None where there is no file, as in a notebook.
    """
    while isinstance(build, functools.partial):
        build = build.func
    try:
        path = inspect.getsourcefile(inspect.unwrap(build))
    except TypeError:  # built into torch or Python
        return None
    return Path(path).resolve() if path is not None and Path(path).is_file() else None


def _modules_beside(folder: Path) -> set[Path]:
    """Source files of the modules that were imported from a folder: which of them a plugin asks for, nobody knows."""
    loaded = [module for name, module in list(sys.modules.items()) if name != "__main__"]
    files = (getattr(module, "__file__", None) for module in loaded)
    paths = (Path(file) for file in files if file and file.endswith(".py"))
    return {path.resolve() for path in paths if path.parent == folder and path.is_file()}


def callable_digest(f: Callable[..., Any]) -> str:
    """SHA-256 of the code of a callable and of all values that it refers to.

    Args:
        f: A function, a method, a partial, a module of torch, or an object with `__call__`.

    Returns:
        Hexadecimal digest.

    Raises:
        ConfigurationError: It refers to something whose value cannot be told.
    """
    digest, seen = hashlib.sha256(), dict[int, Any]()
    for part in (*_parts(f, seen), *_submodules(seen)):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    if isinstance(value, str | bytes | int | float | complex | bool | None | CodeType):
        yield from _code(value, seen) if isinstance(value, CodeType) else _plain(value)
    elif id(value) in seen:
        yield f"again {seen[id(value)][0]}".encode()
    else:
        seen[id(value)] = len(seen), value  # kept alive, so that no id is used again
        yield type(value).__qualname__.encode()
        yield from _inside(value, seen)


def _plain(value: object) -> Iterator[bytes]:
    yield f"{type(value).__name__} {value!r};".encode()


def _inside(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    for kind, parts in KINDS:
        if isinstance(value, kind):
            yield from parts(value, seen)
            return
    if hasattr(value, "detach") and hasattr(value, "numpy"):
        array = value.detach().cpu().contiguous()
        yield f"{array.dtype} {tuple(array.shape)}".encode() + _bytes(array)
    elif hasattr(value, "__fingerprint__"):
        yield from _parts(value.__fingerprint__(), seen)
    elif hasattr(value, "state_dict"):
        yield from _parts((type(value), dict(value.state_dict()), dict(vars(value))), seen)
    elif hasattr(value, "__wrapped__"):  # with a cache, for example
        yield from _parts(value.__wrapped__, seen)
    else:
        yield _pickled(value)
        yield from _parts((type(value), _attributes(value)), seen)


def _bytes(array: Any) -> bytes:
    import torch  # loaded already: this is one of its tensors

    if array.dtype == torch.bfloat16:  # which NumPy does not know
        array = array.view(torch.int16)
    content: bytes = array.numpy().tobytes()
    return content


def _attributes(value: Any) -> dict[str, Any]:
    """Attributes of an instance of the user's own class: the code of theirs counts as well."""
    kind = type(value)
    if not _is_users(kind.__module__) or not hasattr(value, "__dict__"):
        return {}
    own = {"__getstate__", "__reduce__", "__reduce_ex__"}  # says itself what its state is
    return {} if any(own & vars(base).keys() for base in kind.__mro__[:-1]) else dict(vars(value))


def _mapping(value: Mapping[Any, Any], seen: dict[int, Any]) -> Iterator[bytes]:
    for key, entry in value.items():
        yield from (*_parts(key, seen), *_parts(entry, seen))


def _sequence(value: Sequence[Any], seen: dict[int, Any]) -> Iterator[bytes]:
    for entry in value:
        yield from _parts(entry, seen)


def _name(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    yield f"{getattr(value, '__module__', '')} {value.__name__}".encode()


def _function(f: FunctionType, seen: dict[int, Any]) -> Iterator[bytes]:
    if _is_installed(f.__code__.co_filename):  # versions stand in the provenance
        yield f"{f.__module__}.{f.__qualname__}".encode()
        held = [value if _is_told(value) else type(value).__qualname__ for value in _held(f)]
        yield from _parts(held, seen)
        return
    yield from _code(f.__code__, seen)
    yield from _parts((f.__defaults__, f.__kwdefaults__, _held(f), vars(f)), seen)
    used = _names(f.__code__)
    for name in used:
        if name in f.__globals__:
            yield name.encode()
            yield from _parts(f.__globals__[name], seen)
    for value in (*_held(f), *(f.__globals__[name] for name in used if name in f.__globals__)):
        yield from _named(value, used, seen)
    names = modules_imported(f.__code__, f.__globals__.get("__package__") or "")
    modules = [importlib.import_module(name) for name in names]  # all, before one is looked at
    for module in modules:
        yield from _parts(module, seen)


def _held(f: FunctionType) -> list[Any]:
    """Values of a function's closure."""
    return [cell.cell_contents for cell in f.__closure__ or ()]


def _is_told(value: Any) -> bool:
    """Whether what an installed function holds may be the user's own, as f in `torch.func.grad(f)`."""
    kinds = (str, bytes, int, float, complex, tuple, FunctionType, MethodType, functools.partial)
    return isinstance(value, kinds) or hasattr(value, "detach") or _is_users(type(value).__module__)


def _class(value: type, seen: dict[int, Any]) -> Iterator[bytes]:
    """The name of a class; of the user's own also its members, and the classes it is made from."""
    yield from _name(value, seen)
    if _is_users(value.__module__):
        members = {name: each for name, each in vars(value).items() if name not in KEPT_BY_PYTHON}
        yield from _parts((value.__bases__, members), seen)


def _module(value: ModuleType, seen: dict[int, Any]) -> Iterator[bytes]:
    """The name of a module; of the user's own also its source, and the modules that it uses."""
    yield from _name(value, seen)
    if not _is_users(value.__name__):
        return
    path = getattr(value, "__file__", None)
    source = Path(path).read_bytes() if path and Path(path).is_file() else b""
    yield source
    yield from _named(value, re.findall(r"\w+", source.decode(errors="replace")), seen, deep=False)
    for name, member in sorted(vars(value).items()):
        home = member.__name__ if isinstance(member, ModuleType) else _home(member)
        if isinstance(member, str | int | float | complex):
            yield from () if name in KEPT_BY_IMPORT else _plain(member)
        elif not home.startswith(f"{value.__name__}.") and home in sys.modules and _is_users(home):
            yield from _parts(sys.modules[home], seen)


def _submodules(seen: dict[int, Any]) -> Iterator[bytes]:
    """Those that any code among what has been seen names, of packages that it may have come by in any way."""
    count = 0
    while count < len(seen):
        count, values = len(seen), [value for _, value in seen.values()]
        codes = [f.__code__ for f in values if isinstance(f, FunctionType)]
        words = {
            name for code in codes if not _is_installed(code.co_filename) for name in _names(code)
        }
        for value in values:
            yield from _named(value, words, seen, deep=False)


def _named(
    module: Any, names: Iterable[str], seen: dict[int, Any], deep: bool = True
) -> Iterator[bytes]:
    """Submodules of a user's module that a code names, and what it names in them; no others that are loaded."""
    if not isinstance(module, ModuleType) or not _is_users(module.__name__):
        return
    words, below = set(names), f"{module.__name__}."
    parts = [
        sys.modules[name]
        for name in sorted(sys.modules)
        if name.startswith(below)
        and sys.modules[name]
        and words.issuperset(name.removeprefix(below).split("."))
    ]
    for part in parts:
        yield from _parts(part, seen)
    for part in (module, *parts) if deep else ():
        yield from _parts(
            {name: vars(part)[name] for name in sorted(words & vars(part).keys())}, seen
        )


def _home(value: object) -> str:
    """Name of the module that a function or a class comes from."""
    name = getattr(value, "__module__", "") if isinstance(value, FunctionType | type) else ""
    return name if isinstance(name, str) else ""


def _is_users(module: str) -> bool:
    """Whether the code of a module is the user's own, and may change."""
    names = (module, module.partition(".")[0])
    if module == "__main__" or not any(name in sys.modules for name in names):
        return True
    known = [sys.modules.get(name) for name in names]
    path = next((path for each in known if (path := getattr(each, "__file__", None))), None)
    return path is not None and not (
        _is_installed(path) or Path(__file__).parent.parent in Path(path).parents
    )


def _is_installed(path: str) -> bool:
    return path.startswith(INSTALLED) or "site-packages" in path or "dist-packages" in path


KINDS: tuple[tuple[Any, Callable[[Any, dict[int, Any]], Iterator[bytes]]], ...] = (
    (Mapping, _mapping),
    ((list, tuple), _sequence),
    ((set, frozenset), lambda value, seen: _sequence(sorted(value, key=repr), seen)),
    (FunctionType, _function),
    (functools.partial, lambda f, seen: _parts((f.func, f.args, f.keywords), seen)),
    (MethodType, lambda f, seen: _parts((f.__func__, f.__self__), seen)),
    (Enum, lambda value, seen: _parts((type(value), value.name, value.value), seen)),
    ((staticmethod, classmethod), lambda value, seen: _parts(value.__func__, seen)),
    (property, lambda value, seen: _parts((value.fget, value.fset), seen)),
    (type, _class),
    (ModuleType, _module),
    ((BuiltinFunctionType, MemberDescriptorType, GetSetDescriptorType), _name),
)
KEPT_BY_IMPORT = ("__cached__", "__doc__", "__file__", "__name__", "__package__")
KEPT_BY_PYTHON = [
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__abstractmethods__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__static_attributes__",
    "__weakref__",
    "_abc_impl",
]


def _names(code: CodeType) -> list[str]:
    nested = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return sorted({*code.co_names, *(name for inner in nested for name in _names(inner))})


def _code(code: CodeType, seen: dict[int, Any]) -> Iterator[bytes]:
    yield code.co_code + repr((code.co_names, code.co_varnames)).encode()
    yield from _parts(list(code.co_consts), seen)


def _pickled(value: object) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:  # objects refuse in their own ways
        raise ConfigurationError(
            [
                f"the function refers to a {type(value).__name__} whose value cannot be told "
                f"({error}), so that its results could not be told from others; "
                "use pipeline.evaluate, or a plugin"
            ]
        ) from error
