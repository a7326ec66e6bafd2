"""Estimates against what the run then costs, on servers whose time depends on length and that have a knee.

`python -m bench.estimate` prints the table. Each line is one server: `queue` works on so many requests at once and lets
the others wait, `shared` divides the same work among all. A request takes 0.1 s, and 0.4 ms for each character, give
or take a quarter. The endpoint bills a dollar a second, from the resume until it is paused, which takes 5 s and 0.5 s.
`canary`: `plan --canary N` of a new job, then `run`. `history`: a run over 400 short rows, then `plan` and `run` over
800 rows that are twice as long. An error is `estimate / billed - 1`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from tests.commands import Workplace

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS, EARLIER = 800, 400
BASE, PER_CHARACTER, NOISE = 0.1, 0.0004, 0.25
COLD_START, PAUSING = 5.0, 0.5
STEP = 0.05  # seconds after which the shares are computed again
PRELUDE = "from orchestrator.endpoints import CommandEndpoint"


class Server:
    """One model server, on a thread of its own."""

    def __init__(self, slots: int, *, shared: bool) -> None:
        self.slots, self.shared, self.url = slots, shared, ""
        self._chance = random.Random(1)
        self._active = 0

    async def infer(self, request: web.Request) -> web.Response:
        """Answer after the time that the text takes."""
        text = (await request.json())["inputs"]
        work = (BASE + PER_CHARACTER * len(text)) * self._chance.uniform(1 - NOISE, 1 + NOISE)
        if not self.shared:
            async with self._places:
                await asyncio.sleep(work)
            return web.json_response({"said": len(text)})
        self._active += 1
        while work > 1e-9:
            share = min(1.0, self.slots / self._active)
            seconds = min(work / share, STEP)
            await asyncio.sleep(seconds)
            work -= seconds * share
        self._active -= 1
        return web.json_response({"said": len(text)})

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve while the block lasts."""
        loop, ready = asyncio.new_event_loop(), threading.Event()

        async def serve() -> None:
            self._places, self._end = asyncio.Semaphore(self.slots), asyncio.Event()
            application = web.Application()
            application.add_routes([web.post("/", self.infer)])
            runner = web.AppRunner(application)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            ready.set()
            await self._end.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
        thread.start()
        ready.wait()
        yield
        loop.call_soon_threadsafe(self._end.set)
        thread.join()


def rows(number: int, seed: int, factor: float = 1.0) -> list[dict[str, object]]:
    """Rows whose texts have lengths that are distributed as those of many corpora are."""
    chance = random.Random(seed)
    return [
        {"id": f"{seed}-{index}", "text": f"{index} " + "x" * int(chance.lognormvariate(6, 0.8) * factor)}
        for index in range(number)
    ]


def job(place: Workplace, server: Server) -> Path:
    """A job on an endpoint whose state is a file, and that takes its time."""
    state = place.folder / "state"
    state.write_text("paused")
    resume, pause = f"sleep {COLD_START}; echo awake > {state}", f"sleep {PAUSING}; echo paused > {state}"
    endpoint = (
        f"CommandEndpoint('bench', url={server.url!r}, resume=['sh', '-c', {resume!r}], "
        f"pause=['sh', '-c', {pause!r}], state=['cat', {str(state)!r}], look_every=0.5, price_per_hour=3600.0)"
    )
    return place.job(prelude=PRELUDE, endpoint=endpoint, policy="")


def billed(place: Workplace) -> float:
    """Return the dollars that all runs have cost."""
    return sum(float(one["dollars"]) for one in place.run("costs", "--json").json["costs"])


def error(place: Workplace, file: Path, *options: str) -> float:
    """Plan, run, and compare."""
    estimate = place.run("plan", "--json", *options, file).json["estimate"]
    before = billed(place)
    assert place.run("run", "--quiet", file, seconds=600.0).code == 0
    return float(estimate["cost"]) / (billed(place) - before) - 1


def measure(server: Server) -> list[float]:
    """The errors: of canaries of 32 and of 64 items, and of a plan from an earlier run."""
    found = []
    for canary in ("32", "64"):
        with tempfile.TemporaryDirectory() as folder:
            place = Workplace(Path(folder), server.url)
            place.write_rows(rows(ROWS, 1))
            found.append(error(place, job(place, server), "--canary", canary))
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder), server.url)
        place.write_rows(rows(EARLIER, 2, 0.5))
        file = job(place, server)
        assert place.run("run", "--quiet", file, seconds=600.0).code == 0
        place.write_rows(rows(ROWS, 1))
        found.append(error(place, file))
    return found


def main(shapes: list[str]) -> None:
    """Print one line a server."""
    print(f"{'server':>12}{'canary 32':>12}{'canary 64':>12}{'history':>12}", flush=True)
    for shape in shapes or ["queue-4", "queue-8", "queue-16", "shared-4", "shared-8", "shared-16"]:
        kind, _, slots = shape.partition("-")
        server = Server(int(slots), shared=kind == "shared")
        with server.running():
            errors = measure(server)
        print(f"{shape:>12}", *(f"{one:+11.1%}" for one in errors), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
