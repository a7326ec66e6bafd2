"""A disk that reports errors: fsync fails with EIO, only for the ledger, from a moment that the test chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.preloaded import preloaded

if TYPE_CHECKING:
    from pathlib import Path

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int broken(int file) {
    char link[64], path[4096];
    const char *trigger = getenv("BAD_DISK");
    if (!trigger || access(trigger, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, ".db") != NULL;
}
int fsync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    if (broken(file)) { errno = EIO; return -1; }
    return real(file);
}
int fdatasync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    if (broken(file)) { errno = EIO; return -1; }
    return real(file);
}
"""


class BadDisk:
    """`env` lets a process use the disk; `fail` and `heal` switch the errors on and off."""

    def __init__(self, folder: Path) -> None:
        self._trigger = folder / "disk-is-bad"
        self.env = preloaded(folder, "bad_disk", _SHIM) | {"BAD_DISK": str(self._trigger)}

    def fail(self) -> None:
        self._trigger.touch()

    def heal(self) -> None:
        self._trigger.unlink()
