"""What `status` shows, in another process, about the workers of a live run."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import orjson
import psutil
import pytest

from tests.commands import rows, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace

pytestmark = [pytest.mark.model, pytest.mark.unmeasured]


@pytest.fixture
def working(workplace: Workplace) -> Path:
    """Return a job that keeps two workers busy for a while."""
    tiny_models = pytest.importorskip("tests.tiny_models", reason="needs the `local` extra", exc_type=ImportError)
    model = tiny_models.text_classifier(workplace.folder / "model")
    workplace.write_rows(rows(range(40_000)))
    return workplace.job(
        endpoint=f"LocalEndpoint({str(model)!r}, 'text-classification', device='cpu', workers_per_device=2)",
        policy="batch_size='auto'",
    )


def rates_of(workplace: Workplace) -> list[float]:
    return [orjson.loads(path.read_bytes())["items_per_second"] for path in workplace.folder.rglob("*.vitals")]


def test_status_shows_what_each_worker_of_a_live_run_is_doing(workplace: Workplace, working: Path) -> None:
    with workplace.start("run", working, env={"XDG_CACHE_HOME": str(workplace.folder)}) as running:
        until(
            lambda: len(rates := rates_of(workplace)) == 2 and all(rates)
        )  # a look at files costs less than a command
        seen: list[dict[str, Any]] = []

        def busy() -> bool:
            seen[:] = workplace.run("status", "--json").json.get("workers", []) if workplace.count("run") else []
            return len(seen) == 2 and all(worker["items_per_second"] > 0 for worker in seen)

        until(busy)
        said = workplace.run("status").out
        first, second = seen
        assert [worker["endpoint"] for worker in seen] == ["local:model@cpu/1", "local:model@cpu/2"]
        assert first["pid"] != second["pid"]
        for worker in seen:
            assert worker["parent"] == running.pid
            assert 0 < worker["busy"] <= 1
            assert 20e6 < worker["memory"] <= psutil.virtual_memory().total
            assert (worker["device"], worker["device_memory"], worker["device_total"]) == ("cpu", None, None)
            assert worker["budget"] > 0
        assert "local:model@cpu/2 on cpu: busy " in said
        assert " items/s, memory " in said
        running.send(signal.SIGINT)
        running.send(signal.SIGINT)
        running.end()
    assert workplace.run("status", "--json").json["workers"] == []
    assert not [*workplace.folder.rglob("*.vitals")]


def test_leftovers_of_a_killed_run_are_hidden_and_removed(workplace: Workplace, working: Path) -> None:
    def files() -> list[Path]:
        return [*workplace.folder.rglob("*.vitals")]

    with workplace.start("run", working, env={"XDG_CACHE_HOME": str(workplace.folder)}) as running:
        until(lambda: len(files()) == 2)
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not workplace.processes())
    kept = files()
    assert kept
    with workplace.start("run", working, env={"XDG_CACHE_HOME": str(workplace.folder)}) as running:
        until(lambda: len([path for path in files() if path not in kept]) == 2)
        workers = workplace.run("status", "--json").json["workers"]
        assert {worker["parent"] for worker in workers} == {running.pid}
        assert not [path for path in kept if path.exists()]
        running.kill()
    until(lambda: not workplace.processes())
