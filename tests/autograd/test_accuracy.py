"""Derivatives of elementary functions to within rounding, against 60 digits."""

import pytest
import torch

from benchmarks.accuracy import ROWS, errors

LIMITS = {torch.float64: (1e-13, 1e-11, 1e-9), torch.float32: (1e-4, 1e-2, 1e-1)}

# torch's own trigamma keeps fewer digits: docs/accuracy.md
COARSER = {"digamma": 1e3}


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_elementary_functions(name, dtype):
    for (order, (normwise, _)), limit in zip(
        errors(ROWS[name], dtype, points=5).items(), LIMITS[dtype], strict=True
    ):
        assert normwise <= limit * COARSER.get(name, 1.0), f"order {order}"
