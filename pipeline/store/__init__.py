"""HDF5 on disk: what a run writes, and what reads it.

`layout` is the one place with names, shapes and the schema; `packed` says how symmetric tensors lie.
`files` are whole or not there, sealed, and opened only where they are what this project writes.
`writing` makes a shard, and of all shards a result; a result is read as `parts`, seen as `arrays`
and opened by `reading`; `export` and `sweeps` are made of what was read.
"""
