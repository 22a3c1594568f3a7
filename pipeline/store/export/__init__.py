"""Results in one file, or in the formats of others; whether they still hold what was written."""
