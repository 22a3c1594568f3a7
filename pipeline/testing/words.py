"""What a law says where nothing is wrong and something could be better."""

from __future__ import annotations

import warnings

from torch import Tensor


class Advice(UserWarning):
    """What a plugin does without being wrong, and had better not."""


def advise(text: str) -> None:
    """Give advice; pytest lists it among its warnings."""
    warnings.warn(text, Advice, stacklevel=3)


def spell(values: Tensor) -> str:
    """Write out the first numbers of a tensor."""
    numbers = values.flatten().tolist()
    text = ", ".join(f"{number:.6g}" for number in numbers[:6])
    return f"({text}{', …' if len(numbers) > 6 else ''})" if values.ndim else text
