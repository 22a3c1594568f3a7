"""The files that a result lies in: consecutive points in each, checked when they are first read."""
