"""Every built-in kind of grid passes the conformance kit; one without a row here fails."""

import numpy as np
import pytest

from pipeline.functions.record import AnySize
from pipeline.grids.builtin import pipeline_grids
from pipeline.grids.kind import Space
from pipeline.testing import GridTests

ROWS = {
    "latin_hypercube": {"options": {"count": 100}},
    "linspace": {"options": {"count": [3, 4]}},
    "points": {"options": {"values": [[1.0, 2.0], [3.0, 4.5]]}},
    "random": {"options": {"count": 100, "seed": 3}},
    "sobol": {"options": {"count": 100}, "space": Space(AnySize(), (0.0, 1.0), (2.0, 3.0))},
}

for _name, _row in ROWS.items():
    _class = f"Test{_name.title().replace('_', '')}"
    globals()[_class] = type(_class, (GridTests,), {"grid": _name, **_row})


class TestFile(GridTests):
    grid = "file"

    @pytest.fixture(autouse=True)
    def points_in_a_file(self, tmp_path, monkeypatch):
        np.save(tmp_path / "a.npy", np.arange(12.0).reshape(6, 2))
        monkeypatch.setattr(type(self), "options", {"path": str(tmp_path / "a.npy")})


def test_every_kind_has_a_row():
    assert {*ROWS, "file"} == {kind.name for kind in pipeline_grids()}
