"""From a recipe to proven, signed int8 bundles and the list of approved releases."""
