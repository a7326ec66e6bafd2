"""daemon: runs that wait in the queue, schedules, and the child processes that execute them."""
