"""Bills of materials (CycloneDX 1.6): of the product's extras, and of each bundle."""
