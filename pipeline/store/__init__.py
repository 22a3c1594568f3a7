"""HDF5 on disk: layout, shards, the assembled result, and the reader."""
