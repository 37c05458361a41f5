"""Answering applications: windows, features, predictions, shadow scoring."""
