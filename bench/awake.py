"""What waking, holding and pausing an endpoint costs beyond the work, on the service that the tests use.

`python -m bench.awake` prints the table: billed seconds beyond cold start and work, normally and after `kill -9`; how
long the first item waits once the endpoint can answer; and calls to the provider per second, for several runs.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.commands import Workplace, rows, until
from tests.hf_service import HfService, hf_service

if TYPE_CHECKING:
    from tests.hf_rules import Interval

ROUNDS = 3
ITEMS = 400
ANSWERED = 100  # before the kill
COLD_START = 30.3  # seconds; no multiple of the interval between two looks
PRELUDE = "from orchestrator.endpoints import HuggingFaceEndpoint"


def interval(service: HfService, state: str) -> Interval:
    """The last stay in that state."""
    return next(found for found in reversed(service.endpoint("batch").intervals) if found.state == state)


def job(place: Workplace, name: str) -> Path:
    """A job on the endpoint acme/batch."""
    place.write_rows(rows(range(ITEMS)))
    return place.job(
        f"{name}.py",
        name=repr(name),
        prelude=PRELUDE,
        endpoint="HuggingFaceEndpoint('acme/batch')",
        sink=f"JsonlSink({str(place.folder / name)!r} + '.jsonl')",
    )


def environment(service: HfService) -> dict[str, str]:
    """Where the service is, and what opens it."""
    return {"ORCHESTRATOR_HF_API_URL": f"{service.url}/v2", "HF_TOKEN": service.token}


def normal(place: Workplace, service: HfService, runs: int) -> dict[str, float]:
    """Some runs at once, from paused to paused."""
    service.behave(delays={"": 0.1})
    with ExitStack() as stack:
        started = [
            stack.enter_context(place.start("run", job(place, f"job{n}"), env=environment(service)))
            for n in range(runs)
        ]
        for running in started:
            assert running.end(120).code == 0
    asked = service.calls("POST /data/")
    looked = service.calls(" /v2/")
    ready = interval(service, "running").since
    work = asked[-1].at + 0.1 - asked[0].at
    span = looked[-1].at - looked[0].at
    return {
        "beyond": service.endpoint("batch").billed_seconds - COLD_START - work,
        "first item": asked[0].at - ready,
        "calls/s": len(looked) / span,
    }


def killed(place: Workplace, service: HfService) -> dict[str, float]:
    """One run, killed at work: the guard is alive."""
    service.behave(hold_after=ANSWERED)
    with place.start("run", job(place, "job"), env=environment(service)) as running:
        until(lambda: place.count("result") == ANSWERED, 60.0)
        os.kill(running.pid, signal.SIGKILL)
        at = service.calls("POST /data/")[-1].at
        service.wait_for_state("batch", "paused", 60.0)
    until(lambda: not place.processes())
    return {"beyond": interval(service, "paused").since - at}


def main() -> None:
    """Measure and print."""
    print(f"seconds, median (highest) of {ROUNDS}; cold start {COLD_START} s, the provider pauses within 0.02 s")
    for name, runs in (("one run", 1), ("four runs", 4), ("kill -9", 0)):
        found = []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder, hf_service(namespace="acme") as service:
                service.add("batch")
                service.script("batch", initializing=COLD_START)
                place = Workplace(Path(folder), "")
                found.append(normal(place, service, runs) if runs else killed(place, service))
        figures = {key: [one[key] for one in found] for key in found[0]}
        shown = [f"{key} {statistics.median(values):.2f} ({max(values):.2f})" for key, values in figures.items()]
        print(f"{name:10} {', '.join(shown)}", flush=True)


if __name__ == "__main__":
    main()
