"""The Python API: run jobs from scripts, notebooks and other programs, and read their results."""
