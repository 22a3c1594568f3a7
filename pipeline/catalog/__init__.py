"""What there is to ask for, and the way to one's own: ``python -m pipeline.catalog``."""
