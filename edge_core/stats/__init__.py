"""Mergeable summaries and sequential tests."""
