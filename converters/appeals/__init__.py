"""Explains contested predictions by the release that gave them."""
