"""Grids: lazy, ordered, index-addressable sets of points."""
