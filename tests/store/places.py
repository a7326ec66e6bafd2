"""Where ledgers of state machines are: thousands of commits would each wait for the disk."""

from __future__ import annotations

from pathlib import Path

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - private folders are made in it
