"""Batches of the HTTP server: files come in, are validated and queued as runs, and become output files at the end."""
