"""The signed folder that a release is: manifest, digests, signature, trust, archive."""
