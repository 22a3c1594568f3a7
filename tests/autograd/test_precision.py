"""Float32 is float32, whatever the process allows, and the process keeps what it allows."""

import pytest
import torch

from pipeline import prepare
from pipeline.autograd.precision import full_precision


def settings():
    matmul = torch.backends.cuda.matmul
    return (
        matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision,
        torch.backends.cudnn.allow_tf32, matmul.allow_bf16_reduced_precision_reduction,
    )  # fmt: skip


@pytest.fixture
def as_before():
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.parametrize("allowed", ["highest", "high", "medium"])
def test_reduced_precision_is_off_inside_and_as_it_was_outside(allowed, as_before):
    torch.set_float32_matmul_precision(allowed)
    before = settings()
    with full_precision():
        assert settings() == ("ieee", "ieee", False, False)
    assert settings() == before
    assert torch.get_float32_matmul_precision() == allowed


def test_what_was_set_by_the_newer_interface(as_before):
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    with full_precision():
        assert settings()[0] == "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"


def test_it_is_off_while_derivatives_are_evaluated(as_before):
    torch.set_float32_matmul_precision("medium")
    seen = set()

    def watched(x):
        seen.add(settings()[:3])
        return (x @ x.new_ones(3, 3) @ x).sum()

    points = torch.randn(5, 3)
    evaluator = prepare(watched, points, ["value", "hessian"], dtype="float32")
    seen.clear()
    evaluator(points)
    assert seen == {("ieee", "ieee", False)}


def test_an_error_leaves_the_settings_as_they_were(as_before):
    torch.set_float32_matmul_precision("high")
    with pytest.raises(ValueError, match="mine"), full_precision():
        raise ValueError("mine")
    assert torch.get_float32_matmul_precision() == "high"


def test_attention_is_computed_in_its_parts(as_before):
    before = torch.backends.cuda.flash_sdp_enabled()
    with full_precision():
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled() == before
