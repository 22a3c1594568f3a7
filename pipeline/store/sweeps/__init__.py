"""The runs of a sweep as one dataset."""
