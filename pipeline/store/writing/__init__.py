"""From batches to shards, and from shards to the result."""
