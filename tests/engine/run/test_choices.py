"""A job keeps the dtype of its earlier runs, whatever the CPU of this machine would choose."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread

from orchestrator import Job
from orchestrator.domain.run import Spec
from orchestrator.endpoints import HttpEndpoint, LocalEndpoint
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.run.choices import choice_hints, choosing_as_before
from orchestrator.sources import IterableSource

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator import Ask
    from orchestrator.store import Store

AMX, OTHER = frozenset({"avx2", "amx_bf16"}), frozenset({"avx2"})


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return str(tmp_path / "model")


@pytest.fixture(autouse=True)
def no_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.endpoints.devices.accelerators", tuple)


def on_cpu_with(flags: frozenset[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.endpoints.local.cpu_flags", lambda: flags)


async def job_of(model: str, **settings: Any) -> Job:
    endpoint = await to_thread.run_sync(partial(LocalEndpoint, model, "feature-extraction", **settings))
    return Job("vectors", IterableSource(list), endpoint)


async def run_with(job: Job, store: Store) -> None:
    """Record a run of the job."""
    identity = await to_thread.run_sync(job.identity)
    async with registered(store) as process_id:
        about = {"identity": identity}
        await store.runs.take(Spec(job.name, job.fingerprint(identity, None), None, about), process_id)


def told_dtype(job: Job) -> str:
    endpoint = job.endpoints[0].endpoint
    assert isinstance(endpoint, LocalEndpoint)
    return endpoint.computed_dtype


async def test_answers_of_before_the_choice_stay_valid_on_a_cpu_with_amx(
    model: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu_with(OTHER, monkeypatch)
    job = await job_of(model)
    before = await to_thread.run_sync(job.identity)
    assert "auto_dtype" not in before  # as earlier releases have it, so no hash changes
    await run_with(job, store)
    on_cpu_with(AMX, monkeypatch)
    assert await to_thread.run_sync(job.identity) != before
    goes_on = await choosing_as_before(job, store)
    assert await to_thread.run_sync(goes_on.identity) == before
    assert told_dtype(goes_on) == "auto"
    (hint,) = choice_hints(goes_on)
    assert hint.startswith("vectors are computed in the dtype of the weights, as in earlier runs of the job")


async def test_a_run_begun_with_amx_goes_on_in_bfloat16_elsewhere(
    model: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu_with(AMX, monkeypatch)
    job = await job_of(model, workers_per_device=2)
    assert choice_hints(job) == ["vectors are computed in bfloat16, because this CPU has AMX"]
    await run_with(job, store)
    assert (await choosing_as_before(job, store)) is job
    begun = await to_thread.run_sync(job.identity)
    on_cpu_with(OTHER, monkeypatch)
    assert choice_hints(job) == []
    goes_on = await choosing_as_before(job, store)
    assert await to_thread.run_sync(goes_on.identity) == begun
    endpoint = goes_on.endpoints[0].endpoint
    assert isinstance(endpoint, LocalEndpoint)
    assert [worker.computed_dtype for worker in await to_thread.run_sync(endpoint.workers)] == ["bfloat16", "bfloat16"]
    (hint,) = choice_hints(goes_on)
    assert hint.startswith("vectors are computed in bfloat16, as in earlier runs of the job (on this CPU,")


async def test_each_endpoint_of_a_rollout_keeps_its_dtype(
    model: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rollout(row: object, ask: Ask) -> object:
        return await ask(row)

    on_cpu_with(OTHER, monkeypatch)
    endpoint = (await job_of(model)).endpoints[0].endpoint
    job = Job(
        "vectors",
        IterableSource(list),
        {"a": HttpEndpoint("http://a/"), "b": [endpoint, HttpEndpoint("http://b/")]},
        rollout=rollout,
    )
    await run_with(job, store)
    begun = await to_thread.run_sync(job.identity)
    on_cpu_with(AMX, monkeypatch)
    goes_on = await choosing_as_before(job, store)
    assert await to_thread.run_sync(goes_on.identity) == begun
    assert [[one.endpoint.name for one in route.endpoints] for route in goes_on.routes] == [
        [one.endpoint.name for one in route.endpoints] for route in job.routes
    ]
    (hint,) = choice_hints(goes_on)
    assert "as in earlier runs" in hint


async def test_a_job_whose_settings_change_chooses_anew(
    model: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu_with(OTHER, monkeypatch)
    await run_with(await job_of(model), store)
    on_cpu_with(AMX, monkeypatch)
    changed = await job_of(model, parameters={"truncation": True})
    assert told_dtype(await choosing_as_before(changed, store)) == "bfloat16"


async def test_a_dtype_that_the_user_named_is_kept(model: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu_with(AMX, monkeypatch)
    await run_with(await job_of(model), store)
    named = await job_of(model, dtype="float32")
    assert told_dtype(await choosing_as_before(named, store)) == "float32"
    assert choice_hints(named) == []


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({}, "auto"),
        ({"device": "cpu"}, "bfloat16"),
        ({"device": -1}, "bfloat16"),
        ({"device": 0}, "auto"),
        ({"device": "cuda:0"}, "auto"),
        ({"devices": "all"}, "auto"),
        ({"devices": ["cpu", "cuda:0"]}, "auto"),
        ({"devices": ["cpu"]}, "bfloat16"),
    ],
)
def test_an_accelerator_beside_the_cpu_keeps_the_dtype_of_the_weights(
    model: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], dtype: str
) -> None:
    on_cpu_with(AMX, monkeypatch)
    monkeypatch.setattr("orchestrator.endpoints.devices.accelerators", lambda: ("0",))
    endpoint = LocalEndpoint(model, "feature-extraction", **settings)  # type: ignore[arg-type]  # as the table has it
    assert endpoint.computed_dtype == dtype


def test_without_an_accelerator_every_way_to_name_a_device_means_the_cpu(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu_with(AMX, monkeypatch)
    for device in (None, 0, -1, "cpu"):
        assert LocalEndpoint(model, "feature-extraction", device=device).computed_dtype == "bfloat16"
    assert LocalEndpoint(model, "feature-extraction", devices="all").computed_dtype == "bfloat16"
