"""Routes, one file each."""

from pipeline.autograd.routes.acyclic import ColouredAcyclicCompiledRoute, ColouredAcyclicRoute
from pipeline.autograd.routes.base import Route
from pipeline.autograd.routes.coloured import ColouredCompiledRoute, ColouredRoute
from pipeline.autograd.routes.compiled import CompiledRoute
from pipeline.autograd.routes.finite_difference import FiniteDifferenceRoute
from pipeline.autograd.routes.loop import LoopRoute
from pipeline.autograd.routes.scalar import ScalarRoute
from pipeline.autograd.routes.vmap import VmapRoute

ROUTES: dict[str, Route] = {
    route.name: route
    for route in (
        VmapRoute(),
        ScalarRoute(),
        CompiledRoute(),
        ColouredRoute(),
        ColouredCompiledRoute(),
        ColouredAcyclicRoute(),
        ColouredAcyclicCompiledRoute(),
        LoopRoute(),
        FiniteDifferenceRoute(),
    )
}

__all__ = [
    "ROUTES",
    "ColouredAcyclicCompiledRoute",
    "ColouredAcyclicRoute",
    "ColouredCompiledRoute",
    "ColouredRoute",
    "CompiledRoute",
    "FiniteDifferenceRoute",
    "LoopRoute",
    "Route",
    "ScalarRoute",
    "VmapRoute",
]
