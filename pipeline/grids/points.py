from pipeline.grids.base import Grid as PointsGrid
