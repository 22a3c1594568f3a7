"""How derivatives are taken: reverse, forward and Taylor mode, finite differences."""
