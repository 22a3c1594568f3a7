"""Which entries of a derivative can be other than zero: found from the structure of the function."""
