"""The one feature path: definition, windowing and evaluation."""
