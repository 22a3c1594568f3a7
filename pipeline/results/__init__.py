"""Looking at what was computed: ``python -m pipeline.results``."""
