"""Functions with a backward pass of their own, which several tests differentiate."""

import torch


class Once(torch.autograd.Function):
    """A cube that says that its derivative has none."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g
