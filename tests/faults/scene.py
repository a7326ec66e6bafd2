"""A job at the endpoint acme/batch of a service that bills: the setting of the tests of paused endpoints."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from tests.commands import rows, until
from tests.hf_rules import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Running, Workplace
    from tests.hf_service import HfService

ITEMS = 40
CONCURRENCY = 8
ANSWERED = 12  # answers before the model holds back all others
PRELUDE = "from orchestrator.endpoints import HuggingFaceEndpoint"


class Scene:
    """A workplace with a job at the endpoint acme/batch."""

    def __init__(self, workplace: Workplace, service: HfService) -> None:
        self.workplace = workplace
        self.service = service
        self.env = {"ORCHESTRATOR_HF_API_URL": f"{service.url}/v2", "HF_TOKEN": service.token}
        workplace.write_rows(rows(range(ITEMS)))

    def job(self, file: str = "job.py", *, options: str = "", **code: str) -> Path:
        code.setdefault("policy", f"concurrency={CONCURRENCY}, backoff=Backoff(first=0.01), grace=10")
        code["prelude"] = f"{PRELUDE}\n{code.get('prelude', '')}"
        return self.workplace.job(file, endpoint=f"HuggingFaceEndpoint('acme/batch', {options})", **code)

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """Run a command to its end; return its messages."""
        ended = self.workplace.run(*arguments, env=self.env)
        assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
        return ended.err

    def start(self, job: Path) -> Any:
        return self.workplace.start("run", job, env=self.env)

    @property
    def windows(self) -> list[tuple[Any, ...]]:
        return self.workplace.query("SELECT state, owed, closed_by FROM awake_window ORDER BY id")

    @property
    def left_paused(self) -> bool:
        """Whether the endpoint sleeps and no pause is owed."""
        settled = all(state == "closed" for state, _, _ in self.windows)
        return settled and self.service.endpoint("batch").state in {"paused", "scaledToZero"}

    def held_back(self) -> None:
        """Wait until held requests occupy all slots and the others are committed."""
        until(lambda: self.service.endpoint("batch").in_flight == CONCURRENCY)
        until(lambda: self.workplace.count("result") == ANSWERED)

    def finishes(self, job: Path) -> None:
        self.service.behave()
        self.run("run", job)
        found = [row["output"] for row in self.workplace.outputs()]
        assert found == [[answer_to(str(row["text"]))] for row in rows(range(ITEMS))]
        assert self.left_paused


def guard_of(running: Running) -> psutil.Process:
    (guard,) = guards_of(running)
    return guard


def guards_of(running: Running) -> list[psutil.Process]:
    """Return the guards that are still running."""
    return [one for one in psutil.Process(running.pid).children() if any("watch.py" in word for word in _words(one))]


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        return list(process.cmdline())
    return []
