"""Built-in function plugins, one file per family; each is a plugin like anybody else's."""
