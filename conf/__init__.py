"""Hydra configuration of the pipeline: package data."""
