"""Wake, guard and pause endpoints, and pay the pauses that dead processes owe."""
