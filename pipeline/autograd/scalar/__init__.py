"""Functions as graphs of scalar operations over batch vectors: expand, differentiate, emit."""
