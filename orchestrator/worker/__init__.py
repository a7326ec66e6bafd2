"""The worker: a child process that serves one model over a Unix socket. The only place where torch is imported."""
