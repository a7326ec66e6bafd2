"""The guard: a process that survives a `kill -9` of the orchestrator and pauses the endpoints that it left awake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.errors import Fenced, PauseUnconfirmed, RunFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from anyio.abc import Process

_WATCH = Path(__file__).with_name("watch.py")
_START = 10.0  # seconds
_ALL_IS_WELL, _ACT = b"well\n", b"act\n"


@asynccontextmanager
async def guarded(ledger: str, options: Sequence[str] = ()) -> AsyncIterator[Watch]:
    """While the block lasts, the death of this process makes the guard run `orchestrator sweep` on this ledger.

    The guard already watches when the block begins. It runs in a session of its own and inherits the environment, which
    is where tokens come from; `options` name the settings file of the command if it is another one. Nothing secret is
    written to disk. It ends when the block ends, however that happens.
    """
    file = await to_thread.run_sync(os.stat, ledger)
    watch = Watch(ledger, [file.st_dev, file.st_ino], options)
    end = _dismiss
    try:
        await watch.start()
        yield watch
    except (PauseUnconfirmed, Fenced):
        end = _let_act  # the guard continues where this process failed
        raise
    finally:
        with anyio.CancelScope(shield=True):  # a cancellation must not replace the error being raised
            await watch.end(end)


class Watch:
    """The guard process, and its replacement if it is killed."""

    def __init__(self, ledger: str, file: list[int], options: Sequence[str]) -> None:
        self._ledger = ledger
        self._options = options
        self._file = file
        self._debt: bytes | None = None
        self._process: Process | None = None
        self._turn = anyio.Lock()

    async def start(self) -> None:
        """Start a guard that watches this process and knows the debt."""
        sweep = [sys.executable, "-m", "orchestrator", *self._options, "--db", self._ledger, "sweep", "--quiet"]
        self._process = await anyio.open_process(
            [sys.executable, "-I", "-S", str(_WATCH), str(os.getpid()), self._ledger, *sweep],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        await self._tell()
        await _watches(self._process)

    async def owe(self, debt: Mapping[str, object]) -> None:
        """Tell the guard about a debt, which it then pays even if this ledger has been removed or replaced."""
        async with self._turn:
            line = json.dumps({"file": self._file, **debt}).encode() + b"\n"
            if line != self._debt:
                self._debt = line
                await self._tell()

    async def renew(self) -> bool:
        """Start another guard if this one has died. Return whether it had."""
        with anyio.CancelScope(shield=True):
            async with self._turn:
                if self._process is None or self._process.returncode is None:
                    return False
                await self.start()
        return True

    async def end(self, how: Callable[[Process], Awaitable[None]]) -> None:
        """Stop replacing the guard."""
        async with self._turn:
            process, self._process = self._process, None
            if process is not None:
                await how(process)

    async def _tell(self) -> None:
        if self._process is not None and self._process.stdin is not None and self._debt is not None:
            with suppress(anyio.BrokenResourceError):  # it is dead, and about to be replaced
                await self._process.stdin.send(self._debt)


async def _watches(process: Process) -> None:
    with anyio.move_on_after(_START), suppress(anyio.EndOfStream):
        if process.stdout is not None and await process.stdout.receive():
            return
    raise RunFailed("the guard process did not start, so the endpoint was not resumed; look at this machine")


async def _dismiss(process: Process) -> None:
    with anyio.move_on_after(_START):
        await _say(process, _ALL_IS_WELL)
        await process.wait()


async def _let_act(process: Process) -> None:
    await _say(process, _ACT)


async def _say(process: Process, word: bytes) -> None:
    """Send the last message. The pipe's end alone may never come: children that the job's code forked hold it open."""
    if process.stdin is not None:
        with suppress(anyio.BrokenResourceError):
            await process.stdin.send(word)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            await stream.aclose()
