"""Execute one run in one process, from its source to its output."""
