"""The process behind `nursery`: it forks on demand, and reports how each child ended. Run as a script."""

from __future__ import annotations

import gc
import json
import os
import runpy
import selectors
import socket
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

# the modules that nearly every command, or every run, imports sooner or later
import alembic.command
import anyio._backends._asyncio
import pydantic.type_adapter
import sqlalchemy.dialects.sqlite.aiosqlite
import typer.main
import typer.rich_utils
import uvloop

import orchestrator.api
import orchestrator.app.wiring
import orchestrator.cli.app
import orchestrator.engine.daemon.owed_notifications
import orchestrator.engine.run.run_job
import orchestrator.hooks.webhook
import orchestrator.server
import orchestrator.store.tables
from orchestrator.domain import failpoints
from orchestrator.sinks import CsvSink, JsonlSink
from orchestrator.sources import CsvSource, IterableSource, JsonlSource
from orchestrator.store import Store

_NUMBER = 4  # bytes


def serve(door: socket.socket) -> str:
    """Fork on demand. Returns in the children, once they are set up: the script to run, if it is one."""
    selector = selectors.DefaultSelector()
    selector.register(door, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not door:
                selector.unregister(key.fd)
                _tell_end(key.fd, *key.data)
                continue
            length, fds, *_ = socket.recv_fds(door, _NUMBER, 3)
            if not length:
                raise SystemExit
            wish = json.loads(_exactly(door, int.from_bytes(length)))
            out, err, status = fds
            os.set_inheritable(status, False)
            pid = os.fork()
            if pid == 0:
                selector.close()
                door.close()
                os.close(status)
                script: str = wish.pop("script")
                _become(out, err, **wish)
                return script
            os.close(out)
            os.close(err)
            door.sendall(pid.to_bytes(_NUMBER))
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status))


def _tell_end(pidfd: int, pid: int, status: int) -> None:
    os.close(pidfd)
    _, ended = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        os.write(status, ended.to_bytes(_NUMBER))
    os.close(status)


def _exactly(door: socket.socket, length: int) -> bytes:
    said = b""
    while len(said) < length:
        said += door.recv(length - len(said))
    return said


def _become(out: int, err: int, *, arguments: list[str], env: dict[str, str], cwd: str) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    failpoints._FOLDER = os.environ.get("ORCHESTRATOR_FAILPOINTS")
    os.chdir(cwd)
    sys.argv[1:] = arguments


if __name__ == "__main__":
    for part in Store.__annotations__:
        import_module(f"orchestrator.store.{part}")
    if "coverage" in sys.modules and (measurement := sys.modules["coverage"].Coverage.current()):
        measurement.save()  # once: anything unsaved by now would be saved again by each child
    # Each child would build all commands, which takes longer than most of them run.
    commands = typer.main.get_command(orchestrator.cli.app.app)
    for command in commands.commands.values():  # type: ignore[attr-defined]  # it is a group
        command.loaded()
    made = typer.main.get_command
    typer.main.get_command = lambda typer_instance: (
        commands if typer_instance is orchestrator.cli.app.app else made(typer_instance)
    )
    # The garbage collector of a child skips objects from before the fork: visiting them would copy their memory.
    gc.collect()
    gc.freeze()
    if script := serve(socket.socket(fileno=int(sys.argv[1]))):
        sys.argv[0] = script
        sys.path.insert(0, str(Path(script).parent))
        runpy.run_path(script, run_name="__main__")
    else:
        runpy.run_module("orchestrator", run_name="__main__", alter_sys=True)
