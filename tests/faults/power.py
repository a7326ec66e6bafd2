"""Power cuts: all disk operations of a process are recorded, and the disk at any moment is rebuilt from them.

Operations not synced before the cut may be lost: writes to a file until that file is synced, and the creation or
deletion of a file until its folder is synced. Any of them may still have reached the disk, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.preloaded import preloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static const char *inside(const char *path) {
    const char *folder = getenv("POWER_FOLDER");
    size_t length = folder ? strlen(folder) : 0;
    if (!length || strncmp(path, folder, length)) return NULL;
    if (!path[length]) return ".";
    return path[length] == '/' ? path + length + 1 : NULL;
}
static const char *named(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return inside(path);
}
static void note(char what, const char *name, long long at, const void *data, size_t size) {
    static int log = -1;
    ssize_t (*write_)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    int (*open_)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    char head[PATH_MAX + 64];
    if (log < 0) log = open_(getenv("POWER_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    int length = snprintf(head, sizeof head, "%c %lld %zu %s\n", what, at, size, name);
    if (write_(log, head, length) != length || write_(log, data, size) != (ssize_t)size) abort();
}
#define DONE(call, what, name, at, data, size) \
    pthread_mutex_lock(&turn); \
    ssize_t done = call; \
    if (name && done >= 0) note(what, name, at, data, size); \
    pthread_mutex_unlock(&turn); \
    return done;

ssize_t write(int file, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    char path[PATH_MAX];
    const char *name = named(file, path);
    long long at = name ? lseek(file, 0, SEEK_CUR) : 0;
    DONE(real(file, data, size), 'W', name, at, data, (size_t)done)
}
#define PWRITE(function) \
ssize_t function(int file, const void *data, size_t size, off_t at) { \
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, #function); \
    char path[PATH_MAX]; \
    const char *name = named(file, path); \
    DONE(real(file, data, size, at), 'W', name, (long long)at, data, (size_t)done) \
}
PWRITE(pwrite)
PWRITE(pwrite64)
#define TRUNCATE(function) \
int function(int file, off_t size) { \
    int (*real)(int, off_t) = dlsym(RTLD_NEXT, #function); \
    char path[PATH_MAX]; \
    const char *name = named(file, path); \
    DONE(real(file, size), 'T', name, (long long)size, "", 0) \
}
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)
#define SYNC(function) \
int function(int file) { \
    int (*real)(int) = dlsym(RTLD_NEXT, #function); \
    char path[PATH_MAX]; \
    const char *name = named(file, path); \
    DONE(real(file), 'S', name, 0LL, "", 0) \
}
SYNC(fsync)
SYNC(fdatasync)
int unlink(const char *path) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    const char *name = inside(path);
    DONE(real(path), 'U', name, 0LL, "", 0)
}
#define OPEN(function) \
int function(const char *path, int flags, ...) { \
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #function); \
    va_list rest; \
    va_start(rest, flags); \
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
    va_end(rest); \
    const char *name = flags & O_CREAT ? inside(path) : NULL; \
    DONE(real(path, flags, mode), 'C', name, 0LL, "", 0) \
}
OPEN(open)
OPEN(open64)
"""


@dataclass(frozen=True, slots=True)
class Done:
    """An operation on the disk: Create, Write `data` at `at`, Truncate to `at`, Sync, or Unlink `name`."""

    what: str
    name: str
    at: int
    data: bytes


class Recorder:
    """`env` makes a process record its operations in `folder`."""

    def __init__(self, scratch: Path, folder: Path) -> None:
        self._log = scratch / "power.log"
        self.env = preloaded(scratch, "power", _SHIM) | {"POWER_FOLDER": str(folder), "POWER_LOG": str(self._log)}

    def recorded(self) -> Iterator[Done]:
        """Return all operations, in order."""
        with self._log.open("rb") as log:
            while head := log.readline():
                what, at, size, name = head.decode().rstrip("\n").split(" ", 3)
                yield Done(what, name, int(at), log.read(int(size)))


Unsynced = list[Done]


@dataclass(slots=True)
class _File:
    synced: bytes = b""
    unsynced: Unsynced = field(default_factory=list)

    def with_(self, survivors: Unsynced) -> bytes:
        content = bytearray(self.synced)
        for done in survivors:
            end = done.at + len(done.data)
            if done.what == "T":
                del content[end:]
            content += bytes(max(0, end - len(content)))
            content[done.at : end] = done.data
        return bytes(content)


class Disk:
    """A disk and the operations on it so far. Its folder contains the files that existed when it was synced."""

    def __init__(self) -> None:
        self._there: dict[str, _File] = {}
        self._known: dict[str, _File] = {}

    def do(self, done: Done) -> None:
        """Apply the next operation."""
        if done.what == "U":
            self._there.pop(done.name, None)
        elif done.what == "S" and done.name == ".":
            self._known = dict(self._there)
        else:
            file = self._there.setdefault(done.name, _File())
            if done.what == "S":
                file.synced, file.unsynced = file.with_(file.unsynced), []
            elif done.what != "C":
                file.unsynced.append(done)

    def after_a_cut(self, folder: Path, survives: Callable[[Done], bool]) -> None:
        """Write the files that exist after the power returns. `survives` chooses unsynced operations that survive."""
        for name, file in self._known.items():
            (folder / name).write_bytes(file.with_([done for done in file.unsynced if survives(done)]))
