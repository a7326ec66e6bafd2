"""The settings of a daemon whose file is changed while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from orchestrator.app.latest_settings import LatestSettings
from orchestrator.config import load_settings

if TYPE_CHECKING:
    from pathlib import Path


def serving(model: str) -> str:
    return f'db = "a.db"\n[endpoints.here]\nkind = "http"\nurl = "http://127.0.0.1:9/"\nmodels = ["{model}"]\n'


def test_a_changed_file_is_read_again_for_the_same_ledger_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    file, said = tmp_path / "config.toml", list[str]()
    file.write_text(serving("first"))
    settings = load_settings(file, str(tmp_path / "chosen.db"))
    latest = LatestSettings(settings, said.append)
    assert anyio.run(latest.now) is settings
    assert not said

    file.write_text(serving("the-second"))
    now = anyio.run(latest.now)
    assert (list(now.served_models), now.db, now.options) == (["the-second"], settings.db, settings.options)
    assert anyio.run(latest.now) is now
    assert "[endpoints] holds for new batches" in said[0]

    for bad in ("[endpoints.here\n", serving("third").replace("http:", "gopher:"), 'endpoints = "none"\n'):
        file.write_text(bad)
        assert anyio.run(latest.now) is now
        assert "those before stay in use" in said[-1]
        assert "\n" not in said[-1]
    file.unlink()
    assert anyio.run(latest.now) is now

    file.write_text(serving("the-last"))
    assert list(anyio.run(latest.now).served_models) == ["the-last"]


def test_settings_without_a_file_stay_as_they_are() -> None:
    settings = load_settings(None, "x.db", {"ORCHESTRATOR_CONFIG": "/dev/null"})
    assert anyio.run(LatestSettings(settings, print).now).db == "x.db"
