"""The conformance suite for endpoints that are billed while awake: they are paused, whatever happens."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from orchestrator.domain.errors import EndpointLost
from orchestrator.endpoints import endpoint_from
from orchestrator.engine.awake.awake import awake
from orchestrator.engine.awake.pausing import put_to_sleep
from orchestrator.engine.awake.tenant import Tenant
from orchestrator.engine.progress import Presence
from orchestrator.store import Store
from orchestrator.testing.assertions import with_event_loop
from orchestrator.testing.endpoints import EndpointConformance, until_awake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator.domain.policy import Policy
    from orchestrator.ports import ControlPlane, Endpoint


class BilledEndpointConformance(EndpointConformance):
    """Subclass it instead of `EndpointConformance` if the endpoint has `terms`."""

    secrets: Sequence[str] = ()
    """What the ledger must never contain: the token, the password."""

    def revive(self, pause_with: Mapping[str, object]) -> Endpoint:
        """Return the endpoint that these settings from the ledger describe."""
        return endpoint_from(pause_with)

    @with_event_loop
    async def test_what_the_ledger_keeps_of_it_is_enough_to_pause_it(self) -> None:
        """Any process may have to pause it, with JSON that contains no secret."""
        async with self.serving() as endpoint:
            async with endpoint.control() as control:
                await control.resume()
                await until_awake(control)
                terms = control.terms
                assert terms is not None
                assert terms.endpoint == endpoint.name
                assert terms.pause_deadline > 0
                assert terms.linger >= 0
                kept = json.dumps(dict(terms.pause_with))
            assert not [secret for secret in self.secrets if secret in kept]
            async with self.revive(json.loads(kept)).control() as control:
                assert (await put_to_sleep(control, endpoint.name, to_zero=False)).asleep

    @with_event_loop
    async def test_a_pause_is_owed_on_disk_before_it_is_resumed(self, tmp_path: Path) -> None:
        async with self.serving() as endpoint, _ledger(tmp_path) as (store, tenant):
            watched = _Watched(endpoint, store)
            async with awake(watched, tenant) as session, session.connect(self.policy) as data:
                assert watched.owed_at_resume == [True]
                await self._assert_answers(data)
            assert await store.windows.debts() == []
            await _assert_asleep(endpoint)

    @pytest.mark.parametrize("failure", [ValueError("a mistake"), EndpointLost("gone"), KeyboardInterrupt()])
    @with_event_loop
    async def test_it_is_paused_after_any_exception(self, tmp_path: Path, failure: BaseException) -> None:
        async with self.serving() as endpoint, _ledger(tmp_path) as (store, tenant):
            with pytest.raises(type(failure)):
                async with awake(endpoint, tenant) as session, session.connect(self.policy):
                    raise failure
            assert await store.windows.debts() == []
            await _assert_asleep(endpoint)

    @pytest.mark.parametrize("phase", ["while it is resumed", "while it is used"])
    @with_event_loop
    async def test_it_is_paused_when_it_is_cancelled(self, tmp_path: Path, phase: str) -> None:
        async with self.serving() as endpoint, _ledger(tmp_path) as (store, tenant):
            watched = _Watched(endpoint, store)
            async with anyio.create_task_group() as group:
                used = anyio.Event()
                group.start_soon(_use, watched, tenant, self.policy, used)
                await (watched.resumed if phase == "while it is resumed" else used).wait()
                group.cancel_scope.cancel()
            assert await store.windows.debts() == []
            await _assert_asleep(endpoint)


class _Watched:
    """An endpoint that records, at each resume, whether the ledger already has a debt for its pause."""

    def __init__(self, endpoint: Endpoint, store: Store) -> None:
        self._endpoint = endpoint
        self._store = store
        self.owed_at_resume: list[bool] = []
        self.resumed = anyio.Event()

    @property
    def name(self) -> str:
        return self._endpoint.name

    @property
    def startup_timeout(self) -> float:
        return self._endpoint.startup_timeout

    def identity(self, policy: Policy) -> Mapping[str, object]:
        return self._endpoint.identity(policy)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[ControlPlane]:
        async with self._endpoint.control() as control:
            watching: Any = _WatchedControl(control, self)
            yield watching

    async def note_resume(self) -> None:
        receipts = await self._store.receipts.since()
        self.owed_at_resume.append(bool(receipts) and receipts[0].billed_from > 0)
        self.resumed.set()


class _WatchedControl:
    def __init__(self, control: ControlPlane, watched: _Watched) -> None:
        self._control = control
        self._watched = watched

    def __getattr__(self, name: str) -> object:
        return getattr(self._control, name)

    async def resume(self) -> None:
        await self._watched.note_resume()
        await self._control.resume()


async def _use(endpoint: Endpoint, tenant: Tenant, policy: Policy, used: anyio.Event) -> None:
    async with awake(endpoint, tenant) as session, session.connect(policy):
        used.set()
        await anyio.sleep_forever()


@asynccontextmanager
async def _ledger(folder: Path) -> AsyncIterator[tuple[Store, Tenant]]:
    """Open a new ledger, and register this process as one that may use an endpoint."""
    async with Store.open(str(folder / "ledger.db")) as store:
        number = await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=600.0)
        yield store, Tenant(store, number, Presence("conformance"), nullcontext, None, "conformance")


async def _assert_asleep(endpoint: Endpoint) -> None:
    async with endpoint.control() as control:
        assert (await control.state()).asleep
