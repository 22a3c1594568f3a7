"""Which entries of a derivative can be other than zero: found from the structure of the function."""

from pipeline.autograd.sparsity.detection import detect
from pipeline.autograd.sparsity.pattern import Pattern

__all__ = ["Pattern", "detect"]
