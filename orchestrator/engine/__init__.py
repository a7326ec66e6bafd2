"""FLOOR 4: the verbs. Knows domain, ports, job and store; no room, no HTTP, no SQL."""
