"""Run one server, and end it and all that it started once we are gone. Uses only the standard library.

The process PARENT starts it as `python supervisor.py SECONDS PARENT COMMAND...`, with a pipe as standard input. Input
on the pipe, its end, or the parent's death is the order to end the server: SIGTERM to its process group, then SIGKILL
to whatever is left after so many seconds. The supervisor ends as the server did: with its exit code, or by its
signal. PARENT 0 stands for another supervisor that started it without such a pipe.

A local worker ends with its parent: it checks its parent, reads end-of-file on its stdin, and has PDEATHSIG on Linux.
A foreign server (`LocalServer`) does none of that, so a supervisor runs it: our child, which owns the server and its
descendants as a process group, adopts those that leave it (subreaper), and ends them all when its own stdin ends.
"""

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from orchestrator.parent import readable

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
LONGEST = 10.0  # seconds to wait for killed processes to be gone
ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> None:
    """Run the server until it ends, or until we are ordered to end it."""
    grace, parent, command = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    woken = _wakeup_pipe()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a server starts and leaves behind becomes our child, and can be found
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    server = _started(command)
    orders = [0, woken] if parent else [woken]
    status = _wait_for_end_or_order(server, orders, parent or os.getppid())
    if status is None:
        _signal_group(server, signal.SIGTERM)
        status = _wait_for_end(server, woken, time.monotonic() + grace)
    _end_the_rest(server)
    _end_like(-signal.SIGKILL if status is None else status)


def _wakeup_pipe() -> int:
    """Return a descriptor that becomes readable once a child has ended, or we are ordered to end."""
    ours, given = os.pipe()
    os.set_blocking(ours, False)
    os.set_blocking(given, False)
    signal.set_wakeup_fd(given)
    for number in (signal.SIGCHLD, *ORDERS):
        signal.signal(number, lambda *_: None)
    return ours


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _started(command: list[str]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)  # until both processes can handle them
    supervisor, server = os.getpid(), os.fork()
    if server:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)
        with suppress(OSError):  # whichever of the two is first
            os.setpgid(server, server)
        return server
    try:
        os.setpgid(0, 0)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # should the supervisor be killed
        if os.getppid() != supervisor:
            os._exit(1)
        for number in (*ORDERS, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):  # as every program expects them
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _wait_for_end_or_order(server: int, orders: list[int], parent: int) -> int | None:
    """Return the status of a server that ended by itself, or None once it has to be ended.

    `orders`: descriptors, of which the last is woken by signals.
    """
    while (status := _reaped(server)) is None:
        ready = readable(parent, orders)
        if ready is None or 0 in ready or any(number in ORDERS for number in os.read(orders[-1], 4096)):
            return None
    return status


def _wait_for_end(server: int, woken: int, until: float) -> int | None:
    """Return the status of the server after SIGTERM, or None if it has not ended in time."""
    while (status := _reaped(server)) is None:
        left = until - time.monotonic()
        if left <= 0:
            return None
        if select.select([woken], [], [], left)[0]:
            os.read(woken, 4096)
    return status


def _reaped(server: int) -> int | None:
    """Reap every child that has ended. Return the server's status if it is among them."""
    status = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            if ended[0] == server:
                status = os.waitstatus_to_exitcode(ended[1])
    return status


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _end_the_rest(server: int) -> None:
    """Kill the server's group and every other process that has become our child, and wait until they are gone."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        _signal_group(server, signal.SIGKILL)
        for child in _children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _children() -> list[int]:
    with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
        return [int(child) for child in children.read().split()]
    return []


def _end_like(code: int) -> None:
    if code < 0:
        with suppress(OSError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the server's own core is enough
        with suppress(OSError, ValueError):  # SIGKILL has no handler to reset
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
