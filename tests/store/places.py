"""Where ledgers of state machines lie: thousands of commits, each of which would wait for the disk."""

from __future__ import annotations

from pathlib import Path

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - private folders are made in it
