"""Whether the numbers are right: oracles, kinks, checks of every shard, and the certificate."""
