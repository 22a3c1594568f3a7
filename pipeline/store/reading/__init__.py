"""Results as they are opened: slices, batches, and views for torch and xarray."""
