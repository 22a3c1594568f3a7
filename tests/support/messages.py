"""Every message that the project raises, read from its source, and the tests that expect it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENOUGH = 10  # letters of a message that a test has to name


@dataclass(frozen=True)
class Message:
    """A text that is raised, collected as a fault, warned of or logged: its pieces, between what is filled in."""

    place: str
    error: str
    pieces: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {self.error}: {'…'.join(self.pieces)}"


def messages() -> list[Message]:
    found = []
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for kind, text in _texts(node):
                pieces = _pieces(text)
                if kind == "log":
                    pieces = tuple(part for piece in pieces for part in re.split(r"%[sd]", piece))
                if any(piece.strip() for piece in pieces):
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    found.append(Message(place, kind, pieces))
    return found


def _texts(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Raise(exc=ast.Call(func=error, args=[text, *_])):
            yield ast.unparse(error), text
        case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=verb), args=[text, *_]):
            kinds = {
                ("log", "warning"),
                ("log", "error"),
                ("warnings", "warn"),
                ("faults", "append"),
            }
            if (owner, verb) in kinds:
                yield owner, text
        case ast.AugAssign(target=ast.Name(id="faults" | "wrong" | "lost"), value=value):
            parts = value.elts if isinstance(value, ast.List) else [getattr(value, "elt", None)]
            yield from (("fault", part) for part in parts if part is not None)


def _pieces(node: ast.expr) -> tuple[str, ...]:
    """The literal parts of an expression; "" between them stands for anything."""
    match node:
        case ast.Constant(value=str(text)):
            return (text,)
        case ast.JoinedStr(values=values):
            parts = [""]
            for value in values:
                if isinstance(value, ast.Constant):
                    parts[-1] += str(value.value)
                else:
                    parts.append("")
            return tuple(parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            before, after = _pieces(left) or ("",), _pieces(right) or ("",)
            return (*before[:-1], before[-1] + after[0], *after[1:])
        case ast.List(elts=[one]) | ast.ListComp(elt=one):
            return _pieces(one)
    return ("", "")


@cache
def expectations() -> frozenset[str]:
    """Texts in the tests, in the pieces that lie between wildcards of a pattern."""
    texts = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = re.split(r"(?<!\\)\.[*+]\??|(?<!\\)\|", node.value)
                texts |= {re.sub(r"\\(.)", r"\1", part) for part in parts}
    return frozenset(text for text in texts if ENOUGH <= len(text) < 400)


def is_expected(message: Message) -> bool:
    """Whether a test names enough of the message to tell it from others."""
    long = [piece.strip() for piece in message.pieces if len(piece.strip()) >= ENOUGH]
    texts = expectations()
    if any(text in piece or piece in text for piece in long for text in texts):
        return True
    return any(_named(text, message.pieces) >= ENOUGH for text in texts)


def _named(text: str, pieces: tuple[str, ...]) -> int:
    """Literal letters of the message that a part of its instance, `text`, must have come from."""
    best = 0
    for index, piece in enumerate(pieces):
        if text in piece:
            return len(text)
        for start in range(len(piece)):
            if text.startswith(piece[start:]):
                rest = _rest(text[len(piece) - start :], pieces[index + 1 :])
                if rest is not None:
                    best = max(best, len(piece) - start + rest)
        found = _rest(text, pieces[index:])
        if found is not None:
            best = max(best, found)
    return best


def _rest(text: str, pieces: tuple[str, ...]) -> int | None:
    """Literal letters in `text` = filled in, piece, filled in, piece …; None where it cannot be so."""
    if not text or not pieces:
        return 0
    first, *others = pieces
    whole = [at for at in range(len(text)) if first and text.startswith(first, at)]
    counts = [
        len(first) + rest
        for at in whole
        if (rest := _rest(text[at + len(first) :], tuple(others))) is not None
    ]
    for size in range(len(first), 0, -1):  # the text may end within the piece
        if text.endswith(first[:size]):
            counts.append(size)
            break
    if not first:
        counts.append(_rest(text, tuple(others)) or 0)
    return max(counts, default=0 if len(text) <= 40 else None)


def unexpected() -> Iterator[Message]:
    return (message for message in messages() if not is_expected(message))
