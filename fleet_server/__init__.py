"""The fleet server: which device runs which approved release, decided by evidence."""
