"""requirements.txt in a separate environment. A script called `uv` replaces the installer, except in one test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import mdurl
import psutil
import pytest

from orchestrator.domain.endpoint import EndpointState
from orchestrator.worker.handler.environment import installed
from orchestrator.worker.model import LoadFailed
from tests.commands import DEADLINE, until
from tests.handlers import answers, endpoint_of, last_words, written
from tests.members import worker_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HOLIDAYS = """
import holidays
import numpy, orchestrator, orjson, sys

class EndpointHandler:
    def __init__(self, path=""):
        self.holidays = holidays.country_holidays("US")

    def __call__(self, data):
        return [data["inputs"], data["date"] in self.holidays, sys.prefix, holidays.__file__]
"""
# "installs" what each line of requirements.txt says: a module with its number in it, a failure, or a long wait
UV = """#!/bin/sh
set -e
echo "$$ $*" >> "$UV_LOG"
case "$1" in
venv) exec {python} -m venv --without-pip "$4" ;;
pip)
    packages=$("$4" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    while read -r name; do
        case "$name" in
        fail) echo "error: no such package"; exit 1 ;;
        wait) exec sleep 600 ;;
        *) echo "FROM = __file__" > "$packages/$name.py" ;;
        esac
    done < requirements.txt ;;
esac
"""
INSTALL = "from orchestrator.worker.handler.environment import installed; import pathlib, sys;"
INSTALL += "print(installed(pathlib.Path(sys.argv[1])))"


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the log of a replacement for uv, with a cache of its own."""
    script, log = tmp_path / "bin" / "uv", tmp_path / "uv.log"
    script.parent.mkdir()
    script.write_text(UV.format(python=sys.executable))
    script.chmod(0o755)
    log.touch()
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("UV_LOG", str(log))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield log
    for line in log.read_text().splitlines():
        assert not psutil.pid_exists(int(line.split()[0]))


def installs(log: Path) -> int:
    return sum(" pip install " in line for line in log.read_text().splitlines())


def any_alive(log: Path) -> bool:
    return any(psutil.pid_exists(int(line.split()[0])) for line in log.read_text().splitlines())


async def test_requirements_come_from_the_environment_and_other_packages_from_ours(tmp_path: Path, uv: Path) -> None:
    source = """
    import only_there, orchestrator, orjson, sys
    class EndpointHandler:
        def __init__(self, path=""): pass
        def __call__(self, data): return [sys.prefix, only_there.FROM, orjson.__file__, orchestrator.__file__]
    """
    folder = written(tmp_path / "model", source, "only_there\n")
    assert "'only_there', which is not installed: set install_requirements=True" in await last_words(folder)
    for _ in range(2):
        ((prefix, there, orjson, orchestrator),) = await answers(folder, "x", install_requirements=True)
        assert prefix.startswith(str(tmp_path / "cache" / "orchestrator" / "handlers"))
        assert there.startswith(prefix)
        assert not orjson.startswith(prefix)
        assert orchestrator == str(ROOT / "orchestrator" / "__init__.py")
    assert installs(uv) == 1
    (folder / "requirements.txt").write_text("only_there\nanother\n")  # is another environment
    ((other, *_),) = await answers(folder, "x", install_requirements=True)
    assert other != prefix
    assert installs(uv) == 2


async def test_a_requirement_that_is_also_installed_here_comes_from_the_environment(tmp_path: Path, uv: Path) -> None:
    source = """
    import mdurl
    class EndpointHandler:
        def __init__(self, path=""): pass
        def __call__(self, data): return [mdurl.__file__, hasattr(mdurl, "FROM")]
    """
    folder = written(tmp_path / "model", source, "mdurl\n")
    ((path, ours),) = await answers(folder, "x")
    assert (path, ours) == (mdurl.__file__, False)
    ((path, theirs),) = await answers(folder, "x", install_requirements=True)
    assert path.startswith(str(tmp_path / "cache"))
    assert theirs
    assert installs(uv) == 1


async def test_without_a_requirements_file_no_environment_is_created(tmp_path: Path, uv: Path) -> None:
    source = "class EndpointHandler:\n def __init__(self, p): pass\n def __call__(self, data): return 1"
    assert await answers(written(tmp_path / "model", source), "x", install_requirements=True) == [1]
    assert installs(uv) == 0


async def test_a_failed_installation_is_reported_and_tried_again_the_next_time(tmp_path: Path, uv: Path) -> None:
    folder = written(tmp_path / "model", "", "fail\n")
    for tries in (1, 2):
        words = await last_words(folder, install_requirements=True)
        assert words == "requirements.txt cannot be installed: error: no such package"
        assert installs(uv) == tries


async def test_installing_has_its_own_status_text_and_deadline(tmp_path: Path, uv: Path) -> None:
    endpoint = await endpoint_of(written(tmp_path / "model", "", "wait\n"), install_requirements=True)
    async with worker_of(endpoint) as control:
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while installs(uv) == 0:
                assert await control.state() is EndpointState.STARTING
        assert (control.status_text, control.installing) == ("installing requirements", True)
        control._install_by = 0.0
        assert await control.state() is EndpointState.FAILED
        late = "its requirements were not installed within 1800 s: give them more time with install_timeout"
        assert await control.state() is EndpointState.FAILED
        assert control.status_text == late
    await anyio.to_thread.run_sync(until, lambda: not any_alive(uv))


async def test_an_existing_environment_is_reported_as_loading(tmp_path: Path, uv: Path) -> None:
    source = "class EndpointHandler:\n    def __init__(self, path=''):\n        while True: pass\n"
    endpoint = await endpoint_of(written(tmp_path / "model", source, ""), install_requirements=True)
    async with worker_of(endpoint) as control:
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while control.installing:
                assert await control.state() is EndpointState.STARTING
        assert control.status_text == "loading the model"
    assert installs(uv) == 1


def test_many_workers_that_need_the_same_environment_install_it_once(tmp_path: Path, uv: Path) -> None:
    folder = written(tmp_path / "model", "", "only_there\n")

    def install(_number: int) -> str:
        command = [sys.executable, "-c", INSTALL, str(folder)]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    with ThreadPoolExecutor(4) as pool:
        pythons = set(pool.map(install, range(4)))
    assert len(pythons) == 1
    assert installs(uv) == 1


def test_an_installation_that_was_killed_leaves_no_process_and_no_valid_environment(tmp_path: Path, uv: Path) -> None:
    folder = written(tmp_path / "model", "", "only_there\nwait\n")
    command = [sys.executable, "-c", INSTALL, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        until(lambda: installs(uv) == 1)
        installer = int(uv.read_text().splitlines()[-1].split()[0])
        process.send_signal(signal.SIGKILL)
    until(lambda: not psutil.pid_exists(installer))
    (folder / "requirements.txt").write_text("only_there\nwait\n# the same\n")
    (home,) = (tmp_path / "cache" / "orchestrator" / "handlers").glob("*/")
    assert (home / "bin" / "python").exists()
    assert not (home / "complete").exists()
    (folder / "requirements.txt").write_text("only_there\nwait\n")
    script = tmp_path / "bin" / "uv"
    script.write_text(script.read_text().replace("exec sleep 600", "true"))
    assert installed(folder) == home / "bin" / "python"
    assert (home / "complete").exists()
    assert installs(uv) == 2


def test_files_referenced_by_requirements_count(tmp_path: Path, uv: Path) -> None:
    folder = written(tmp_path / "model", "", "-c limits.txt\n")
    found = set()
    for limit in ("a<1", "a<2"):
        (folder / "limits.txt").write_text(limit)
        found.add(installed(folder))
    assert len(found) == 2
    assert installs(uv) == 2


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, uv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "model", "", "only_there\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(uv))  # a file
    with pytest.raises((LoadFailed, OSError), match=str(uv)):
        installed(folder)


@pytest.mark.slow
@pytest.mark.parametrize("installer", ["pip", "uv"])
async def test_a_package_from_the_index_is_installed_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if installer == "uv" and shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    if installer == "pip":
        monkeypatch.setenv("PATH", str(tmp_path))  # there may be a uv on the usual path
    folder = written(tmp_path / "model", HOLIDAYS, "holidays\n")
    assert "'holidays', which is not installed" in await last_words(folder)
    request = {"inputs": "x", "date": "2026-12-25"}
    ((text, holiday, prefix, path),) = await answers(folder, request, install_requirements=True)
    assert (text, holiday) == ("x", True)
    assert path.startswith(prefix)
    assert str(prefix).startswith(str(tmp_path / "cache"))
