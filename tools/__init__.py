"""The runner and checker of the notebooks; not part of what a reader must know."""
