"""Trains models again when the fleet server asks for it."""
