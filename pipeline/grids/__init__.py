"""Grids: lazy, ordered, index-addressable sets of points.

`base` holds the laws, one module each the kinds: `product`, `random_points`, `quasi`, `file`,
`points`; `builtin` contributes them through the plugin hook.
"""
