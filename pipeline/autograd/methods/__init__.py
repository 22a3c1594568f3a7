"""How derivatives are taken: reverse mode, Taylor mode, differences of values."""
