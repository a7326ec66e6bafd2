"""How a worker reads the name of a device, and how `doctor` checks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the `local` extra")

import torch
from anyio import to_thread

from orchestrator.endpoints import LocalEndpoint
from orchestrator.endpoints.device_trial import why_unusable
from orchestrator.worker.device import device_of
from tests import tiny_models

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace

pytestmark = pytest.mark.unmeasured


def test_a_device_number_has_the_meaning_of_transformers() -> None:
    assert {device_of(name, None) for name in (None, "0", "-1", "cpu", "3")} == {torch.device("cpu")}
    named = [str(device_of(name, torch.device("cuda"))) for name in (None, "0", "1", "-1", "cpu")]
    assert named == ["cuda", "cuda:0", "cuda:1", "cpu", "cpu"]


async def test_a_device_is_checked_before_a_run(tmp_path: Path) -> None:
    folder = await to_thread.run_sync(tiny_models.text_classifier, tmp_path / "model")

    async def trouble(**devices: Any) -> str | None:
        return await why_unusable(
            await to_thread.run_sync(lambda: LocalEndpoint(str(folder), "text-classification", **devices))
        )

    assert await trouble() is None
    assert await trouble(device=-1) is None
    assert str(await trouble(devices=["cpu", "teapot"])).startswith("device 'teapot' cannot be used: RuntimeError: ")


def test_doctor_reports_a_job_with_an_unusable_device(workplace: Workplace) -> None:
    folder = tiny_models.text_classifier(workplace.folder / "model")
    prelude = "from orchestrator.endpoints import LocalEndpoint"
    endpoint = f"LocalEndpoint({str(folder)!r}, 'text-classification', device={{}})"
    ended = workplace.run("doctor", workplace.job(prelude=prelude, endpoint=endpoint.format("'teapot'")))
    assert ended.code == 1
    assert "device 'teapot' cannot be used: RuntimeError: " in " ".join(ended.out.split())
