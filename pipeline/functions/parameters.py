"""Typed parameters: the signature of a builder is the schema of its options."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PluginError, nearest


@dataclass(frozen=True)
class Parameter:
    """One typed option of a builder.

    Attributes:
        name: Keyword of the builder.
        annotation: Type that a value must have: bool, int, float, str, `Literal`, a union
            of these, or `tuple[T, ...]` and `list[T]` of them.
        default: Value taken when the user says nothing.
    """

    name: str
    annotation: Any
    default: Any


def parameters_of(build: Callable[..., Any], owner: str) -> dict[str, Parameter]:
    """Read the typed options of a builder from its signature.

    Parameters without a keyword form (positional-only) are supplied by the caller of the
    builder and are not options.

    Args:
        build: The builder.
        owner: Who contributes it, for error messages.

    Returns:
        Options by name, in the order of the signature.

    Raises:
        PluginError: An option lacks an annotation or a default, they do not fit, or no
            configuration can hold them.
    """
    try:
        signature = inspect.signature(build, eval_str=True)
    except (NameError, TypeError, ValueError) as error:
        raise PluginError(
            f"{owner}: the signature of its builder cannot be read: {error}"
        ) from error
    options = {}
    for name, entry in signature.parameters.items():
        if entry.kind is entry.POSITIONAL_ONLY:
            continue
        if entry.kind in (entry.VAR_KEYWORD, entry.VAR_POSITIONAL):
            raise PluginError(
                f"{owner}: parameter {entry} of its builder cannot be typed; "
                "name every parameter, each with a type and a default"
            )
        if entry.annotation is entry.empty or entry.default is entry.empty:
            raise PluginError(
                f"{owner}: parameter {name!r} of its builder needs a type and a default, "
                f"as in `{name}: float = 1.0`; found `{entry}` (build= takes the function that builds f, "
                "such as build=build, and not f itself)"
            )
        try:
            default = conform(entry.default, entry.annotation)
        except TypeError as error:
            raise PluginError(
                f"{owner}: parameter {name!r} of its builder has the default {entry.default!r}, which is not "
                f"{spell_type(entry.annotation)}; correct the default or the type"
            ) from error
        if not _is_plain(default):
            raise PluginError(
                f"{owner}: parameter {name!r} of its builder is a {type(default).__name__}, which no configuration can "
                "hold; take numbers, words, or lists of them, and make what is made of them inside"
            )
        options[name] = Parameter(name, entry.annotation, default)
    return options


def _is_plain(value: Any) -> bool:
    """Whether a value can be written in a configuration, and is found there again as it was."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def bind(
    options: Mapping[str, Parameter], values: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], list[str]]:
    """Check the given values against the typed options and fill in the defaults.

    Args:
        options: What may be given.
        values: What was given.
        where: How the user addresses these options, e.g. ``function_params``.

    Returns:
        The complete options, and one sentence per fault.
    """
    bound = {name: option.default for name, option in options.items()}
    faults = []
    for name, value in values.items():
        if name not in options:
            faults.append(f"{where}.{name} is unknown. {nearest(name, options)}")
            continue
        try:
            bound[name] = conform(value, options[name].annotation)
        except TypeError:
            expected = spell_type(options[name].annotation)
            whole = isinstance(value, float) and value.is_integer() and "int" in expected
            remedy = f"; write {int(value)}" if whole else ""  # as in count=1e6
            faults.append(
                f"{where}.{name}: expected {expected}, got {value!r} ({type(value).__name__}){remedy}"
            )
    return bound, faults


def conform(value: Any, annotation: Any) -> Any:
    """Return `value` as the annotated type without losing information.

    An int serves as a float and a list as a tuple; nothing else is converted.

    Args:
        value: What was given.
        annotation: The type that is expected.

    Returns:
        The value, of the annotated type.

    Raises:
        TypeError: The value is not of that type.
    """
    origin = typing.get_origin(annotation)
    if annotation is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _conform_union(value, typing.get_args(annotation))
    if origin is typing.Literal:
        return _require(value, value in typing.get_args(annotation))
    if origin in (tuple, list):
        return _conform_sequence(value, annotation)
    return _conform_plain(value, dict if origin is dict else annotation)


def _conform_plain(value: Any, kind: Any) -> Any:
    if kind is dict and isinstance(value, Mapping):
        return dict(value)
    if kind is None or kind is type(None):
        return _require(value, value is None)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and kind is not bool:
        raise TypeError
    return _require(value, isinstance(value, kind))


def _require(value: Any, condition: bool) -> Any:
    if not condition:
        raise TypeError
    return value


def _conform_union(value: Any, choices: Sequence[Any]) -> Any:
    for choice in choices:
        try:
            return conform(value, choice)
        except TypeError:
            continue
    raise TypeError


def _conform_sequence(value: Any, annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError
    if origin is tuple and arguments[-1] is not Ellipsis:
        _require(value, len(value) == len(arguments))
        return tuple(conform(entry, kind) for entry, kind in zip(value, arguments, strict=True))
    return origin(conform(entry, arguments[0]) for entry in value)


def spell_type(annotation: Any) -> str:
    """Name a type as a user would.

    Args:
        annotation: Of a parameter.

    Returns:
        E.g. ``float or a list of float or null``.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(spell_type(choice) for choice in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if origin in (tuple, list):
        return f"a list of {spell_type(arguments[0])}"
    if annotation is type(None):
        return "null"
    return getattr(annotation, "__name__", str(annotation))
