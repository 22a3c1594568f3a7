"""Hydra's own errors, in the project's words: what was expected, what came, the nearest right word."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields

from pipeline.errors import PipelineError, nearest
from pipeline.settings import CONF, Schema, several_options

KEYS = {field.name: str(field.type) for field in fields(Schema)}
TYPES = {
    "str": "a word",
    "int": "a whole number",
    "int | None": "a whole number or null",
    "str | None": "a word or null",
    "bool": "true or false",
    "list[str]": "a list, as in 'plugins=[./mine.py]'",
    "dict[str, Any]": "keys below it, as in function_params.b=10",
}


def spell(error: BaseException, words: Sequence[str]) -> str:
    """Say what is wrong with a command line.

    Args:
        error: What Hydra, OmegaConf or this project raised.
        words: The command line.

    Returns:
        The message; the error's own text where there is nothing better.
    """
    if own := _own(error):
        return str(own)
    text = str(error) if error.__cause__ is None else f"{error}\n{error.__cause__}"
    for pattern, say in COMPLAINTS:
        match = re.search(pattern, text)
        if match is not None:
            return say(match, text, words)
    return _plain(text)


def remark(words: Sequence[str]) -> str:
    """Say how settings are written, where Hydra's own parser has refused a command line.

    Args:
        words: The command line.

    Returns:
        One line, or nothing.
    """
    dashed = [word for word in words if re.match(r"--?[a-z_.]+=", word)]
    fitting = [word for word in dashed if word.lstrip("-").split("=")[0].split(".")[0] in KEYS]
    return f"settings are written without dashes: {fitting[0].lstrip('-')}" if fitting else ""


def _own(error: BaseException | None) -> PipelineError | None:
    """The error of this project that another one is about, such as Hydra's of a launcher."""
    while error is not None and not isinstance(error, PipelineError):
        error = error.__cause__
    return error


def _unknown_key(match: re.Match[str], text: str, words: Sequence[str]) -> str:
    full = re.search(r"full_key: (\S+)", text)
    key = full[1] if full else match[1]
    group, _, last = key.rpartition(".")
    option = _chosen(group, words)
    if not option:
        own = [*KEYS, "experiment"]
        elsewhere = [f"{other}.{last}" for other in _groups() if last in _keys(other)]
        if elsewhere:
            return f"configuration key {key!r} is unknown. Did you mean {' or '.join(elsewhere)}?"
        return f"configuration key {key!r} is unknown. {nearest(last, own)}"
    others = [other for other in _options(group) if last in _keys(group, other)]
    hint = (
        f" It belongs to {' or '.join(f'{group}={other}' for other in others)}." if others else ""
    )
    known = nearest(last, _keys(group, option))
    return f"configuration key {key!r} is unknown with {group}={option}.{hint} {known}"


def _unknown_option(match: re.Match[str], text: str, words: Sequence[str]) -> str:
    group, option = match[1], match[2]
    listed = re.search(r"Available options in '[^']*':\n((?:\t\S+\n)+)", text)
    known = listed[1].split() if listed else _options(group)
    more = {
        "grid": " A plugin's kind: grid=plugin grid.name=…",
        "hydra/sweeper": " For optuna: pip install 'pipeline-derivatives[optuna]'",
    }
    return f"{group}={option} is unknown. {nearest(option, known)}{more.get(group, '')}"


def _not_an_assignment(match: re.Match[str], text: str, words: Sequence[str]) -> str:
    word = match[1]
    homes = [group for group in _groups() if word in _options(group)]
    hint = f"did you mean {homes[0]}={word}?" if homes else "quote a value that holds spaces"
    if word in KEYS:
        hint = f"write {word}=…"
    return f"expected key=value, got {word!r}; {hint}"


def _unreadable(match: re.Match[str], text: str, words: Sequence[str]) -> str:
    part = match[1]
    word = next((word for word in words if word.endswith(part)), part)
    key, _, value = word.partition("=")
    if value.count("[") != value.count("]") or value.count("{") != value.count("}"):
        return f"the brackets in {word!r} do not match; write a list as '{key}=[1,2]', quoted from the shell"
    if not key.strip("+~"):
        return f"expected key=value, got {word!r}; name the key"
    return f"the value of {key} cannot be read: {value!r}; quote it, as in '{key}=\"…\"'"


def _several(match: re.Match[str], text: str, words: Sequence[str]) -> str:
    key, _, value = match[1].partition("=")
    if key in _groups():
        return several_options(key, value)
    return (
        f"{match[1]} is several values; write one list as '{key}=[{value}]', "
        f"or a sweep over them with -m: python -m pipeline -m {match[1]}"
    )


def _wrong_type(match: re.Match[str], text: str, words: Sequence[str]) -> str:
    key, _, value = match[1].partition("=")
    group = key.partition(".")[0]
    if group == "function":
        return (
            f"function is the name of one function, got {match[1]}; "
            "write function=ackley, and its parameters as function_params.…="
        )
    if group not in KEYS:
        return _plain(text)
    return f"{key}: expected {TYPES.get(KEYS[group], KEYS[group])}, got {value!r}"


def _added(match: re.Match[str], text: str, words: Sequence[str]) -> str:
    return f"{match[1]} has a value already; leave the + out: {match[1]}=…"


def _added_group(match: re.Match[str], text: str, words: Sequence[str]) -> str:
    group = match[1]
    return f"{group} is chosen already; leave the + out: {group}=…"


def _no_such_group(match: re.Match[str], text: str, words: Sequence[str]) -> str:
    key = match[1]
    if not key:
        return "expected key=value, got a word that begins with =; name the key"
    return f"configuration key {key!r} is unknown. {nearest(key, [*KEYS, 'experiment'])}"


def _interpolation(match: re.Match[str], text: str, words: Sequence[str]) -> str:
    full = re.search(r"full_key: (\S+)", text)
    where = f" in {full[1]}" if full else ""
    return f"${{…}}{where} refers to {match[1]!r}, which is not there; correct the name or set it"


def _plain(text: str) -> str:
    """Without OmegaConf's remarks on its own types."""
    lines = [
        line
        for line in text.splitlines()
        if not re.match(r"\s+(object_type|reference_type)=", line)
    ]
    return "\n".join(lines).strip()


Say = Callable[[re.Match[str], str, Sequence[str]], str]
COMPLAINTS: tuple[tuple[str, Say], ...] = (
    (r"[Kk]ey '([^']+)' (?:is not in struct|not in 'Schema')", _unknown_key),
    (r"Could not find '([\w/]+)/([^'/]*)'", _unknown_option),
    (r"Error parsing override '([^'=]+)'\nmissing EQUAL", _not_an_assignment),
    (r"Error parsing override '(.*)'\n", _unreadable),
    (
        r"(?:no viable alternative|mismatched input|extraneous input|token recognition error).*'(.+)'",
        _unreadable,
    ),
    (r"LexerNoViableAltException: (.+)\n", _unreadable),
    (r"Ambiguous value for argument '([^']+)'", _several),
    (r"Error merging override (\S+)\n", _wrong_type),
    (r"Could not append to config\. An item is already at '([^']+)'", _added),
    (r"Multiple values for (\w+)\. To override", _added_group),
    (r"force-add of config groups is not supported: '\+\+(\w+)", _added_group),
    (r"Could not (?:override|delete|append)[^']*'([^']*)'\. No match", _no_such_group),
    (r"Interpolation key '([^']+)' not found", _interpolation),
    (r"Environment variable '([^']+)' not found", _interpolation),
)


def _groups() -> list[str]:
    return [folder.name for folder in sorted(CONF.iterdir()) if folder.name in KEYS]


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def _keys(group: str, option: str = "*") -> list[str]:
    files = (CONF / group).glob(f"{option}.yaml")
    text = "\n".join(file.read_text() for file in files)
    return sorted(set(re.findall(r"^([a-z_]+):", text, flags=re.MULTILINE)))


def _chosen(group: str, words: Sequence[str]) -> str:
    """The option of a group that is in use, or nothing where it is no group."""
    if group not in _groups():
        return ""
    default = re.search(
        rf"^  - {group}: (\w+)", (CONF / "config.yaml").read_text(), flags=re.MULTILINE
    )
    given = [word.partition("=")[2] for word in words if word.startswith(f"{group}=")]
    return [default[1] if default else "*", *given][-1]
