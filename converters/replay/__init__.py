"""Proof that training and serving agree: one log through both, and what it exercises."""
