"""The API's calls, one module for each subject."""
