"""Functions: what a plugin contributes, its parameters, shapes and outputs, and the digest of its source.

`record` holds the records. `parameters`, `structure` and `outputs` say what goes in and comes out;
`fingerprint`, with `imports` and `files_read`, what determines the numbers.
"""
