"""FLOOR 0: the words. Frozen values and pure functions; standard library only, nothing async."""
