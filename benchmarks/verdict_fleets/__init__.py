"""Simulated fleets for ``benchmarks/verdicts.py``, and the tests that stand beside ours."""
