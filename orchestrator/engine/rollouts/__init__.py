"""Rollouts: the user's functions, each of which makes requests for one item; and the queues of these requests."""
