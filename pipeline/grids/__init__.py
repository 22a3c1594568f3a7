"""Grids: lazy, ordered, index-addressable sets of points.

`base` holds the laws; `product`, `random_points`, `quasi`, `file` and `points` the kinds, which
`builtin` contributes through the plugin hook. `options` settles what the user asks for. Below them
`streams`, `permutation` and `elementary` are the arithmetic, `readers` and `tables` the files.
"""
