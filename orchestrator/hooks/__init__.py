"""Hooks: notified of how a run ended; one file per kind."""
