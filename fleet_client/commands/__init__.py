"""The commands of ``serinus``, one module for each subject."""
