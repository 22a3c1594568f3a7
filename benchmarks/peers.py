"""The ways to evaluate derivatives at many points that are compared. Each computes the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Case, Library

Evaluate = Callable[[], list[np.ndarray]]
LEVEL = {"gradient": 1, "jacobian": 1, "hessian": 2}


def prepare(peer: str, case: Case, dtype: str, threads: int, count: int) -> Evaluate:
    """Prepare a peer: compilers run here, and are not measured.

    Args:
        peer: Name in `PEERS`.
        case: What is evaluated.
        dtype: float64 or float32.
        threads: Threads it may use.
        count: Number of points.

    Returns:
        A call that evaluates all points and gives one array per operator.
    """
    points = case.points(count)
    orders = [LEVEL.get(name, case.order) for name in case.operators]
    return PEERS[peer](case, points, orders, dtype, threads)


def torch_library(dtype: str) -> Library:
    import torch

    def pairs(n: int) -> Any:
        return tuple(torch.triu_indices(n, n, 1))

    return Library(
        xp=torch,
        array=lambda values: torch.as_tensor(values, dtype=getattr(torch, dtype)),
        erfc=torch.special.erfc,
        softmax=lambda x: torch.softmax(x, -1),
        convolve=torch.nn.functional.conv2d,
        pairs=pairs,
    )


def jax_library(dtype: str) -> Library:
    import jax

    return Library(
        xp=jax.numpy,
        array=lambda values: jax.numpy.asarray(values, dtype=dtype),
        erfc=jax.scipy.special.erfc,
        softmax=lambda x: jax.nn.softmax(x, axis=-1),
        convolve=lambda x, w: jax.lax.conv(x, w, (1, 1), "VALID"),
        pairs=lambda n: tuple(np.triu_indices(n, 1)),
    )


def with_jax(case: Case, points: Any, orders: Any, dtype: str, threads: int) -> Evaluate:
    """`jax.jit(jax.vmap(…))`: reverse mode first for a scalar function, then forward mode."""
    # affinity bounds XLA's threads; one thread also switches Eigen's pool off
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    import jax

    jax.config.update("jax_enable_x64", True)
    f = case.build(jax_library(dtype))
    x = jax.numpy.asarray(points, dtype=dtype)
    scalar = f(x[0]).ndim == 0

    def derivative(order: int) -> Callable[[Any], Any]:
        g = f
        for level in range(order):
            g = jax.jacrev(g) if level == 0 and (scalar or f(x[0]).size < case.n) else jax.jacfwd(g)
        return g

    compiled = jax.jit(jax.vmap(lambda p: [derivative(order)(p) for order in orders]))
    return lambda: [np.asarray(level) for level in jax.block_until_ready(compiled(x))]


def with_pipeline(case: Case, points: Any, orders: Any, dtype: str, threads: int) -> Evaluate:
    """This project, planned for a long job."""
    torch = _torch(threads)
    import pipeline

    f = case.build(torch_library(dtype))
    x = torch.as_tensor(points, dtype=getattr(torch, dtype))
    evaluator = pipeline.prepare(f, x, case.operators, count=10**9, order=case.order)
    with_pipeline.route = f"{evaluator.plan.route} {evaluator.plan.mode}"

    def evaluate() -> list[np.ndarray]:
        result = evaluator(x)
        levels = result.values() if isinstance(result, dict) else [result]
        return [level.numpy() for level in levels]

    return evaluate


def with_func(case: Case, points: Any, orders: Any, dtype: str, threads: int) -> Evaluate:
    """`torch.func`, eagerly: `vmap(jacfwd(jacrev(f)))`."""
    torch = _torch(threads)
    f = case.build(torch_library(dtype))
    x = torch.as_tensor(points, dtype=getattr(torch, dtype))
    y = f(x[0])

    def derivative(order: int) -> Callable[[Any], Any]:
        g = f
        for level in range(order):
            reverse = level == 0 and (y.ndim == 0 or y.numel() < case.n)
            g = torch.func.jacrev(g) if reverse else torch.func.jacfwd(g)
        return g

    batched = torch.func.vmap(lambda p: tuple(derivative(order)(p) for order in orders))
    return lambda: [level.numpy() for level in batched(x)]


def with_autograd(vectorize: bool) -> Callable[..., Evaluate]:
    """`torch.autograd.functional`, point by point."""

    def peer(case: Case, points: Any, orders: Any, dtype: str, threads: int) -> Evaluate:
        torch = _torch(threads)
        f = case.build(torch_library(dtype))
        x = torch.as_tensor(points, dtype=getattr(torch, dtype))

        def derivative(order: int) -> Callable[[Any], Any]:
            g = f
            for level in range(order):
                g = _jacobian_of(g, vectorize, create_graph=level + 1 < order)
            return g

        def evaluate() -> list[np.ndarray]:
            return [
                torch.stack([derivative(order)(point) for point in x]).numpy() for order in orders
            ]

        return evaluate

    return peer


def _jacobian_of(g: Callable[[Any], Any], vectorize: bool, create_graph: bool) -> Any:
    import torch

    return lambda p: torch.autograd.functional.jacobian(
        g, p, create_graph=create_graph, vectorize=vectorize
    )


def with_loop(case: Case, points: Any, orders: Any, dtype: str, threads: int) -> Evaluate:
    """The notebook's loop: one backward pass per element, point by point."""
    torch = _torch(threads)
    from pipeline.autograd.reference import derivatives

    f = case.build(torch_library(dtype))
    x = torch.as_tensor(points, dtype=getattr(torch, dtype))

    def evaluate() -> list[np.ndarray]:
        rows = [derivatives(f, point, max(orders)) for point in x]
        return [torch.stack([row[order] for row in rows]).numpy() for order in orders]

    return evaluate


def _torch(threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return torch


PEERS: dict[str, Callable[..., Evaluate]] = {
    "pipeline": with_pipeline,
    "JAX": with_jax,
    "torch.func": with_func,
    "autograd vectorised": with_autograd(vectorize=True),
    "autograd.functional": with_autograd(vectorize=False),
    "loop": with_loop,
}
POINT_BY_POINT = ("autograd vectorised", "autograd.functional", "loop")
