"""Measurements, side by side with peers; no test depends on them (docs/performance.md)."""
