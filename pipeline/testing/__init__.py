"""Conformance tests for plugin authors.

Write one class per function, in a file that pytest collects::

    from pipeline.testing import FunctionTests

    class TestMine(FunctionTests):
        function = "mine"
        plugins = ("./mine.py",)

and likewise with `GridTests` for a kind of grid. Every test is a law that has to be kept so that all
routes, modes, batches and workers of a run give the same, right numbers.
"""

from pipeline.testing.functions import FunctionTests
from pipeline.testing.grids import GridTests
from pipeline.testing.words import Advice

__all__ = ["Advice", "FunctionTests", "GridTests"]
