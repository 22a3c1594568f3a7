"""The autograd core: derivatives of a torch function at many points. Pure torch."""
