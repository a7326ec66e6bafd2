"""Hooks: whoever wants to be told how a run ended; one file per kind."""
