"""Functions: what a plugin contributes, what goes in and comes out, and what determines its numbers.

`record` is what a plugin writes, `bound` has its `parameters`. `structure` and `outputs` say what
goes in and comes out; `fingerprint`, with `imports` and `files_read`, what determines the numbers.
"""
