"""FLOOR 3: the child process that serves one model over a Unix socket. The only place where torch is imported."""
