"""Sweeps over many jobs: how they are launched, and the table of what became of them."""
