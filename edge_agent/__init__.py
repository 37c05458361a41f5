"""The program on the device: serves a release, updates itself, tells the fleet the truth."""
