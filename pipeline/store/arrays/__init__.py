"""Datasets that are indexed as NumPy arrays and read no more than that."""
