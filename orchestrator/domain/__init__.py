"""Frozen values and pure functions; standard library only, nothing async."""
