"""Ctrl-C, cancellation, and the death of a script: the endpoint is paused, and a later call continues."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.api.scripts import ran, started
from tests.commands import rows, until

if TYPE_CHECKING:
    from tests.commands import Workplace
    from tests.servers import InferenceServer

ITEMS = 30
IN_FLIGHT = 4
ANSWERED = 10  # answers before the server holds back all others

_BILLED = """
woken = Path("awake")
def billed(**settings):
    return job_of(endpoint=CommandEndpoint("mine", URL, resume=["touch", "awake"], pause=["rm", "awake"],
        state=["sh", "-c", "test -e awake && echo up || echo down"], look_every=0.05), **settings)
"""
_INTERRUPTED = """
try:
    run(billed(grace=GRACE))
except KeyboardInterrupt as interrupt:
    say(interrupt, "| awake" if woken.exists() else "| paused", signal.getsignal(signal.SIGINT).__name__)
"""
_CONTINUED = "say(len(run(billed())))"


@pytest.fixture
def scene(workplace: Workplace, server: InferenceServer) -> Workplace:
    workplace.write_rows(rows(range(ITEMS)))
    server.behave(hold_after=ANSWERED)
    return workplace


def code(workplace: Workplace, text: str, grace: float = 600.0) -> str:
    return f"URL, GRACE = {workplace.url!r}, {grace}\n{_BILLED}{text}"


def in_flight(server: InferenceServer) -> None:
    server.wait(lambda stats: stats.requests == ANSWERED + IN_FLIGHT)


def drains(workplace: Workplace) -> None:
    """Wait until the run has been asked to stop."""
    log = workplace.ledger.with_name("ledger.db.runs") / "1.events.log"
    until(lambda: "stop_requested" in log.read_text())


def is_awake(workplace: Workplace) -> bool:
    return (workplace.folder / "awake").exists()


def continues(workplace: Workplace, server: InferenceServer, asked_twice: int = 0) -> None:
    """Check that a later call asks only what is left."""
    server.behave()
    assert ran(workplace, code(workplace, _CONTINUED)).out == f"{ITEMS}\n"
    assert server.quiet().duplicates <= asked_twice
    assert not is_awake(workplace)


def test_ctrl_c_waits_for_the_answers_in_flight_and_is_raised_once_the_endpoint_is_paused(
    scene: Workplace, server: InferenceServer
) -> None:
    with started(scene, code(scene, _INTERRUPTED)) as running:
        in_flight(server)
        running.send(signal.SIGINT)
        drains(scene)
        server.behave()
        ended = running.end()
    said = f"stopped as asked with {ANSWERED + IN_FLIGHT} of {ITEMS} items done; make the same call again to continue"
    assert (ended.err, ended.out) == ("", f"{said} | paused default_int_handler\n")
    continues(scene, server)


def test_a_second_ctrl_c_cuts_short_what_is_in_flight(scene: Workplace, server: InferenceServer) -> None:
    with started(scene, code(scene, _INTERRUPTED)) as running:
        in_flight(server)
        until(lambda: scene.count("result") == ANSWERED)
        running.send(signal.SIGINT)
        drains(scene)  # otherwise Python may merge the two signals
        running.send(signal.SIGINT)
        ended = running.end()
    assert ended.err == ""
    assert f"with {ANSWERED} of {ITEMS} items done" in ended.out
    assert ended.out.endswith("| paused default_int_handler\n")
    continues(scene, server, asked_twice=IN_FLIGHT)


def test_the_answers_in_flight_have_the_grace_of_the_policy(scene: Workplace, server: InferenceServer) -> None:
    with started(scene, code(scene, _INTERRUPTED, grace=0.2)) as running:
        in_flight(server)
        running.send(signal.SIGINT)
        ended = running.end()
    assert ended.out.endswith("| paused default_int_handler\n")
    continues(scene, server, asked_twice=IN_FLIGHT)


def test_an_uncaught_ctrl_c_ends_the_script_as_any_other_after_the_pause(
    scene: Workplace, server: InferenceServer
) -> None:
    with started(scene, code(scene, "run(billed())")) as running:
        in_flight(server)
        running.send(signal.SIGINT)
        server.behave()
        ended = running.end()
    assert ended.code == -signal.SIGINT
    assert ended.err.splitlines()[-1].startswith("KeyboardInterrupt: stopped as asked")
    assert not is_awake(scene)


_CANCELLED = {
    "a time limit": """
async def main():
    async with asyncio.timeout(None) as limit:
        watch(lambda: limit.reschedule(0))
        await arun(billed(grace=GRACE))
""",
    "a task group": """
async def main():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(arun(billed(grace=GRACE)))
        watch(task.cancel)
    say("cancelled", task.cancelled())
    raise TimeoutError
""",
    "a scope of anyio": """
import anyio
async def main():
    with anyio.fail_after(600) as scope:
        watch(lambda: setattr(scope, "deadline", -1))
        async with connect() as app:
            await app.run(billed(grace=GRACE))
""",
}
_MAIN = """
def watch(act):
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, act)
{way}
try:
    asyncio.run(main())
except TimeoutError:
    say("| awake" if woken.exists() else "| paused")
"""


@pytest.mark.parametrize("way", _CANCELLED.values(), ids=_CANCELLED.keys())
def test_cancelling_is_a_stop_and_is_raised_once_the_endpoint_is_paused(
    scene: Workplace, server: InferenceServer, way: str
) -> None:
    with started(scene, code(scene, _MAIN.format(way=way))) as running:
        in_flight(server)
        running.send(signal.SIGUSR1)
        drains(scene)
        server.behave()
        ended = running.end()
    assert ended.err == ""
    assert ended.out.endswith("| paused\n")
    assert scene.count("result") == ANSWERED + IN_FLIGHT
    continues(scene, server)


def test_the_guard_pauses_the_endpoint_of_a_script_that_is_killed(scene: Workplace, server: InferenceServer) -> None:
    with started(scene, code(scene, "run(billed())")) as running:
        in_flight(server)
        assert is_awake(scene)
        running.process.kill()
        until(lambda: not is_awake(scene))
    continues(scene, server, asked_twice=IN_FLIGHT)


_LEFT = {
    "a thread": """
def work(app):
    try: app.run(billed(grace=GRACE))
    except Exception as error: say(type(error).__name__)
with connect() as app:
    threading.Thread(target=work, args=[app]).start()
    signal.sigwait([signal.SIGUSR1])
say("awake" if woken.exists() else "paused")
""",
    "a loop over a stream": """
async def main():
    async with connect() as app:
        async for row in app.stream(billed(grace=GRACE)):
            signal.sigwait([signal.SIGUSR1])
            break
asyncio.run(main())
say("awake" if woken.exists() else "paused")
""",
}


@pytest.mark.parametrize("way", _LEFT.values(), ids=_LEFT.keys())
def test_the_end_of_the_connection_stops_what_still_works_and_waits_for_the_pause(
    scene: Workplace, server: InferenceServer, way: str
) -> None:
    blocked = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
    with started(scene, code(scene, blocked + way)) as running:
        in_flight(server)
        running.process.send_signal(signal.SIGUSR1)
        drains(scene)
        server.behave()
        ended = running.end()
    assert ended.err == ""
    assert "paused" in ended.out.splitlines()  # the thread may say afterwards that it was interrupted
    continues(scene, server)


def test_ctrl_c_while_the_connection_is_left_cuts_short_and_is_raised_after_the_pause(
    scene: Workplace, server: InferenceServer
) -> None:
    script = """
def work(app):
    try: app.run(billed(grace=GRACE))
    except Exception as error: pass
try:
    with connect() as app:
        threading.Thread(target=work, args=[app]).start()
        signal.sigwait([signal.SIGUSR1])
except KeyboardInterrupt:
    say("awake" if woken.exists() else "paused")
"""
    blocked = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
    with started(scene, code(scene, blocked + script)) as running:
        in_flight(server)
        running.process.send_signal(signal.SIGUSR1)
        drains(scene)
        running.send(signal.SIGINT)
        ended = running.end()
    assert (ended.out, ended.err) == ("paused\n", "")
    continues(scene, server, asked_twice=IN_FLIGHT)
