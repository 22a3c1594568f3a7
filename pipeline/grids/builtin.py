"""The kinds of grids that come with the pipeline, contributed like those of any plugin."""

from __future__ import annotations

from pipeline.grids.file import build_file
from pipeline.grids.kind import GridKind
from pipeline.grids.points import build_points
from pipeline.grids.product import build_linspace
from pipeline.grids.quasi import build_latin_hypercube, build_sobol
from pipeline.grids.random_points import build_random
from pipeline.hookspecs import hookimpl


@hookimpl
def pipeline_grids() -> list[GridKind]:
    """Contribute the built-in kinds."""
    return [
        GridKind("linspace", build_linspace, "every combination of equally spaced coordinates"),
        GridKind("random", build_random, "independent uniform or normal points"),
        GridKind("sobol", build_sobol, "Sobol sequence, scrambled by default"),
        GridKind("latin_hypercube", build_latin_hypercube, "one point in each stratum of an input"),
        GridKind("file", build_file, "the rows of a .npy, .npz, .csv or .h5 file"),
        GridKind("points", build_points, "points written out in the configuration"),
    ]
