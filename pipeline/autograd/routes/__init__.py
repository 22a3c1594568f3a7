"""Routes, one file each, in the order in which they are preferred."""

from pipeline.autograd.routes.base import Evaluate, Request, Route
from pipeline.autograd.routes.loop import LoopRoute
from pipeline.autograd.routes.vmap import VmapRoute

ROUTES: dict[str, Route] = {route.name: route for route in (VmapRoute(), LoopRoute())}

__all__ = ["ROUTES", "Evaluate", "LoopRoute", "Request", "Route", "VmapRoute"]
