"""The daemon: queued runs, schedules, and the child processes that execute runs."""
