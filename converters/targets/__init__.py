"""One module for each family of targets: how a variant is compiled, placed and run."""
