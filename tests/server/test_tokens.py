"""Where tokens come from: a variable, or a file that is made once and that only its owner can read."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from orchestrator.app import open_app
from orchestrator.config import ServerToken, Settings, settings_from
from orchestrator.domain.errors import UsageError
from orchestrator.domain.identity import Identity, Role
from orchestrator.server import listener_of
from orchestrator.server.tokens import VARIABLE, load_access, main_token, token_place
from tests.failed_runs import run_with_failures
from tests.ledgers import new_ledger

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace

MAIN = {VARIABLE: "main-token-of-tests"}
ANN = {"ann": ServerToken(role=Role.RUN, token_env="ANN")}


def test_a_token_is_made_once_and_kept_where_only_its_owner_can_read_it(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    before = os.umask(0)
    try:
        with ThreadPoolExecutor(8) as threads:
            tokens = set(threads.map(lambda _: main_token(ledger, {}), range(8)))
    finally:
        os.umask(before)
    (token,) = tokens
    assert len(token) >= 43
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db.token"]
    file = tmp_path / "ledger.db.token"
    assert token_place(ledger, {}) == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    access = load_access({}, ledger, {})
    found = access.by_token(token)
    assert found is not None
    assert (found.identity, access.chosen) == (Identity("admin", Role.ADMIN), False)


def test_a_token_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    main_token(tmp_path / "ledger.db", {})
    (tmp_path / "ledger.db.token").chmod(0o644)
    with pytest.raises(UsageError, match="every user of this machine can read"):
        main_token(tmp_path / "ledger.db", {})


def test_a_token_that_another_user_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ledger.db").touch()
    main_token(tmp_path / "ledger.db", {})
    monkeypatch.setattr("orchestrator.store.private.os.geteuid", lambda: 4_000_000)
    monkeypatch.setattr("orchestrator.store.private.ROOT", 4_000_001)  # the tests may be root's
    main_token(tmp_path / "ledger.db", {})  # whose owner is trusted
    (tmp_path / "ledger.db").unlink()
    with pytest.raises(UsageError, match="another user of this machine made"):
        main_token(tmp_path / "ledger.db", {})


def test_a_token_that_is_set_is_not_kept(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    access = load_access(ANN, ledger, MAIN | {"ANN": "token-of-ann-in-tests"})
    assert access.chosen
    assert list(tmp_path.iterdir()) == []
    assert token_place(ledger, MAIN) == VARIABLE
    named = access.by_token("token-of-ann-in-tests")
    assert named is not None
    assert named.identity == Identity("ann", Role.RUN)
    assert access.by_token("token-of-ann-in-test") is None
    assert access.by_token("") is None
    assert access.by_cookie(named.cookie) == named
    assert access.by_cookie("") is None
    assert "token-of" not in repr(access)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (MAIN, "the token of ann is in the variable ANN, which is not set"),
        (MAIN | {"ANN": ""}, "which is not set"),
        (MAIN | {"ANN": "short"}, "the token in ANN cannot be used"),
        (MAIN | {"ANN": "a token with a space"}, "the token in ANN cannot be used"),
        (MAIN | {"ANN": "ein-geheimes-tökchen"}, "the token in ANN cannot be used"),
        ({VARIABLE: "short", "ANN": "token-of-ann-in-tests"}, f"the token in {VARIABLE} cannot be used"),
        (MAIN | {"ANN": MAIN[VARIABLE]}, "the same token"),
    ],
)
def test_a_token_that_proves_nothing_is_refused_and_not_shown(
    tmp_path: Path, environment: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        load_access(ANN, tmp_path / "ledger.db", environment)
    assert not [value for value in environment.values() if value and value in str(refused.value)]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"http": "8377"}, "is not HOST:PORT"),
        ({"tokens": {"ann": {"role": "root", "token_env": "ANN"}}}, "'read', 'run' or 'admin'"),
        ({"tokens": {"ann": {"role": "run", "token": "secret"}}}, "token"),
        ({"tokens": {"admin": {"role": "run", "token_env": "ANN"}}}, "belongs to the main token"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        settings_from({"server": settings})


@pytest.mark.parametrize(
    ("config", "place", "words"),
    [
        ("", "8377", "--http: '8377' is not HOST:PORT"),
        ("", "0.0.0.0:0", "other machines can reach 0.0.0.0:0, so the server needs a token that you choose"),
        ("", "192.0.2.1:0", "other machines can reach 192.0.2.1:0"),
        ('[server]\nhttp = "0.0.0.0:0"\n', None, "other machines can reach 0.0.0.0:0"),
        ('[server.tokens.ann]\nrole = "run"\ntoken_env = "ANN"\n', "127.0.0.1:0", "the variable ANN, which is not set"),
    ],
)
def test_a_server_that_would_not_be_safe_does_not_begin(
    workplace: Workplace, config: str, place: str | None, words: str
) -> None:
    file = workplace.folder / "config.toml"
    file.write_text(config)
    ended = workplace.run("--config", file, "serve", *(() if place is None else ("--http", place)))
    assert ended.code == 2
    assert words in ended.line
    assert workplace.count("process") == 0


def test_all_addresses_need_a_name_of_the_server(workplace: Workplace) -> None:
    ended = workplace.run("serve", "--http", "0.0.0.0:0", env=MAIN)
    assert (ended.code, "list the names of this server in [server] hosts" in ended.line) == (2, True)


async def test_a_ledger_that_is_opened_through_a_link_has_the_same_token_and_logs(tmp_path: Path) -> None:
    ledger, link = tmp_path / "ledger.db", tmp_path / "elsewhere" / "link.db"
    await to_thread.run_sync(new_ledger, ledger)
    await to_thread.run_sync(link.parent.mkdir)
    await to_thread.run_sync(link.symlink_to, ledger)
    async with open_app(Settings(db=str(link))) as app:
        listener = await to_thread.run_sync(listener_of, app, "127.0.0.1:0")
        listener.socket.close()
        assert listener.token_place == f"{ledger}.token"
        run = str((await run_with_failures(app.store)).id)
        (tmp_path / "ledger.db.runs").mkdir()
        (tmp_path / "ledger.db.runs" / f"{run}.events.log").write_text("2026-11-21T00:00:00Z it began\n")
        assert len(await app.events(run, 5)) == 1
    assert [path.name for path in link.parent.iterdir()] == ["link.db"]
