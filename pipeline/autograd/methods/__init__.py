"""How derivatives are taken: reverse, forward and Taylor mode, contractions, finite differences."""
