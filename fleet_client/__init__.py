"""The operators' HTTP client and the ``serinus`` command."""
