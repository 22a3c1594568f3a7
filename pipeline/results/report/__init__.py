"""A result as one HTML page with pictures: quantities -> fields -> pictures -> page."""
