"""awake: endpoints are woken, guarded and paused, and the pauses that dead processes owe are paid."""
