"""Four daemons on one ledger, killed and frozen at random: every item is answered once, and everything is paused.

The log of the service is the truth. A seed, which is in the name of the test, repeats the same choices; timing differs.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator.engine.awake.reaper import BEAT
from orchestrator.store.sqlite import DRIVER
from tests.commands import DEADLINE, rows, until
from tests.faults.audit import wrongs
from tests.faults.daemons import answers, children, job, queue
from tests.faults.scene import CONCURRENCY
from tests.hf_rules import answer_to

if TYPE_CHECKING:
    from tests.commands import Running
    from tests.faults.scene import Scene

pytestmark = pytest.mark.unmeasured
DAEMONS = 4
SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))  # minutes, set manually, with other seeds
ITEMS = 60  # of a job
ENDPOINTS = ("batch", "other")
FROZEN = BEAT + 1.0  # as if it were longer than the lease: the process misses its own heartbeat as well

_TWO_AT_ONCE = """
SELECT h.run_id FROM hold h JOIN process p ON p.id = h.process_id
WHERE h.until IS NULL AND p.state = 'live' AND h.run_id IS NOT NULL GROUP BY h.run_id HAVING count(*) > 1
"""
_HELD = """
SELECT DISTINCT w.endpoint FROM awake_window w JOIN hold h ON h.window_id = w.id JOIN process p ON p.id = h.process_id
WHERE w.state <> 'closed' AND h.until IS NULL AND p.state = 'live'
"""


class Chaos:
    def __init__(self, scene: Scene, stack: ExitStack, seed: int) -> None:
        self.scene = scene
        self.stack = stack
        self.luck = random.Random(seed)
        self.daemons: list[Running] = []
        self.jobs: list[str] = []
        self.frozen: list[tuple[float, psutil.Process]] = []
        self.losses = 0  # of processes that may have had requests in flight
        self.unheld: dict[str, float] = {}
        self.longest = 0.0

    def start(self) -> None:
        self.daemons.append(self.stack.enter_context(self.scene.workplace.start("serve", env=self.scene.env)))

    def submit(self) -> None:
        number = len(self.jobs)
        endpoint = self.luck.choice(ENDPOINTS)
        path = job(self.scene, f"job{number}", range(number * ITEMS, (number + 1) * ITEMS))
        path.write_text(path.read_text().replace("acme/batch", f"acme/{endpoint}"))
        queue(self.scene, path, endpoint=f"acme/{endpoint}")
        self.jobs.append(path.stem)

    def kill_a_daemon(self) -> None:
        victim = self.daemons.pop(self.luck.randrange(len(self.daemons)))
        victim.kill()
        self.start()

    def kill_a_child(self) -> None:
        if (victim := self.any_child()) is not None:
            victim.kill()
            self.losses += 1

    def freeze_a_child(self) -> None:
        if (victim := self.any_child()) is not None:
            self.freeze(victim)
            self.losses += 1

    def freeze_a_daemon(self) -> None:
        self.freeze(psutil.Process(self.luck.choice(self.daemons).pid))

    def any_child(self) -> psutil.Process | None:
        frozen = {process for _, process in self.frozen}
        found = [child for daemon in self.daemons for child in children(daemon) if child not in frozen]
        return self.luck.choice(sorted(found, key=lambda one: one.pid)) if found else None

    def freeze(self, victim: psutil.Process) -> None:
        with suppress(psutil.NoSuchProcess):
            victim.suspend()
            self.frozen.append((time.monotonic() + FROZEN, victim))
            try:
                self.scene.workplace.change("UPDATE process SET lease_until = 0 WHERE pid = ?", [victim.pid])
            except DRIVER.OperationalError:  # frozen in a transaction, it blocks all others
                self.thaw(float("inf"))

    def thaw(self, before: float) -> None:
        for due, victim in list(self.frozen):
            if due <= before:
                self.frozen.remove((due, victim))
                with suppress(psutil.NoSuchProcess):
                    victim.resume()

    def watch(self) -> None:
        """Check what must be true at any moment."""
        assert self.scene.workplace.query(_TWO_AT_ONCE) == [], "two living processes execute one run"
        held = {row[0] for row in self.scene.workplace.query(_HELD)}
        now = time.monotonic()
        for name in ENDPOINTS:
            if self.scene.service.endpoint(name).state == "paused" or f"acme/{name}" in held:
                self.unheld.pop(name, None)
            else:
                self.longest = max(self.longest, now - self.unheld.setdefault(name, now))
                assert self.longest <= DEADLINE, f"{name} was awake for nobody"

    def watched_until(self, moment: float) -> bool:
        self.watch()
        return time.monotonic() > moment

    def play(self) -> None:
        actions: list[Any] = [self.submit] * 3 + [self.kill_a_child] * 3 + [self.kill_a_daemon]
        actions += [self.freeze_a_child, self.freeze_a_daemon]
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            self.luck.choice(actions)()
            pause = time.monotonic() + self.luck.uniform(0.2, 1.6)
            until(partial(self.watched_until, pause))
            self.thaw(time.monotonic())

    def settle_down(self) -> None:
        """Stop causing trouble. A run with several deaths behind it does not have to wait for its turn here."""
        self.thaw(float("inf"))
        until(self.has_settled_down)
        for daemon in self.daemons:
            daemon.process.send_signal(signal.SIGTERM)
        assert [daemon.end().code for daemon in self.daemons] == [0] * len(self.daemons)

    def has_settled_down(self) -> bool:
        self.watch()
        self.scene.workplace.change("UPDATE run SET due_at = 0 WHERE due_at > unixepoch() AND holder IS NULL")
        return not self.scene.workplace.count("run", "due_at IS NOT NULL OR holder IS NOT NULL")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [29])
def test_four_daemons_killed_and_frozen_at_random_answer_everything_once_and_pause_the_endpoint(
    scene: Scene, seed: int
) -> None:
    scene.service.add("other")
    scene.service.behave(delays={"": 0.15})
    with ExitStack() as stack:
        chaos = Chaos(scene, stack, seed)
        chaos.submit()
        for _ in range(DAEMONS):
            chaos.start()
        until(lambda: scene.workplace.count("process", "serves = 1") == DAEMONS)
        chaos.play()
        chaos.settle_down()
    until(lambda: not scene.workplace.processes())
    assert wrongs(scene.workplace) == []
    assert scene.workplace.run("queue").out == "the queue is empty\n"
    assert [scene.service.endpoint(name).state for name in ENDPOINTS] == ["paused", "paused"]
    for number, name in enumerate(chaos.jobs):
        texts = [str(row["text"]) for row in rows(range(number * ITEMS, (number + 1) * ITEMS))]
        assert answers(scene.workplace, name) == [[answer_to(text)] for text in texts]
    asked = [scene.service.endpoint(name).asked for name in ENDPOINTS]
    items = len(chaos.jobs) * ITEMS
    assert len(asked[0] | asked[1]) == items
    assert sum(map(sum, (one.values() for one in asked))) <= items + CONCURRENCY * chaos.losses
