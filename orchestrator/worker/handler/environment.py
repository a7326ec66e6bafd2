"""Installs a requirements.txt into an environment of its own, kept in the user's cache for the next run.

The environment lies over ours: the packages that the file names, and their dependencies, come first; everything else is
taken from where the worker itself runs, just as the toolkit installs the file on top of its image. Nothing is installed
into our own environment.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from orchestrator.domain.environment import INSTALLER, is_secret
from orchestrator.worker.handler.packages import REQUIREMENTS
from orchestrator.worker.lifeline import killed_with_parent
from orchestrator.worker.model import LoadFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

_PACKAGE = Path(__file__).parents[3]  # where `import orchestrator` finds this very code
_OPTION = "--install-requirements"
_COMPLETE = "complete"  # written last: an environment without it is incomplete
_OTHER_FILES = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)[ =]+(\S+)", re.MULTILINE)


def change_environment(folder: Path) -> None:
    """Restart this process, without the option, in the environment of the folder's requirements.txt, if it has one.

    Raises `LoadFailed` with the reason if it cannot be installed.
    """
    if not (folder / REQUIREMENTS).is_file():
        return
    try:
        python = installed(folder)
    except OSError as failure:
        raise LoadFailed(f"no environment can be made: {failure}") from failure
    for name, value in {**os.environ}.items():
        if name.startswith(INSTALLER) and is_secret(name, value):
            del os.environ[name]  # the installer's alone
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path not in {"", str(_PACKAGE)})
    os.execv(python, [str(python), *(word for word in sys.orig_argv[1:] if word != _OPTION)])


def installed(folder: Path) -> Path:
    """Return the environment's Python. Waits for another process that is installing it, then installs what is missing.

    The environment is built in its final place, because the scripts of a moved one point nowhere. A mark that is
    written last says that it is complete. The lock ends with the process; the installer holds it too, so other
    processes wait for an installer that outlives us.
    """
    home = platformdirs.user_cache_path("orchestrator") / "handlers" / _digest(folder)
    python = home / "bin" / "python"
    if (home / _COMPLETE).exists():
        return python
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / _COMPLETE).exists():
            shutil.rmtree(home, ignore_errors=True)
            _build(home, folder, lock.fileno())
            (home / _COMPLETE).touch()
    return python


def _build(home: Path, folder: Path, lock: int) -> None:
    uv, python = shutil.which("uv"), str(home / "bin" / "python")
    make = [uv, "venv", "--python", sys.executable, str(home)] if uv else [sys.executable, "-m", "venv", str(home)]
    if trouble := _trouble(make, folder, lock):
        raise LoadFailed(f"no environment can be made: {trouble}; install uv, or what `python -m venv` needs")
    _lay_over_ours(Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)})))
    pip = (
        [uv, "pip", "install", "--python", python]
        if uv
        else [python, "-m", "pip", "install", "--disable-pip-version-check"]
    )
    if trouble := _trouble([*pip, "--requirement", REQUIREMENTS], folder, lock):
        raise LoadFailed(f"{REQUIREMENTS} cannot be installed: {trouble}")


def _lay_over_ours(packages: Path) -> None:
    """Make the environment search our packages last. `addsitedir` also processes .pth files, for editable installs."""
    lines = [f"import site; site.addsitedir({folder!r})" for folder in _ours()]
    (packages / "_orchestrator.pth").write_text("\n".join([*lines, str(_PACKAGE), ""]))


def _ours() -> list[str]:
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    return [folder for folder in folders if Path(folder).is_dir()]


def _trouble(command: Sequence[str], folder: Path, lock: int) -> str | None:
    """Run the command with its output in our log. Return its last lines if it fails."""
    last = ""
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[lock],
        preexec_fn=killed_with_parent,  # noqa: PLW1509 - the one other thread only reads
    ) as process:
        for line in process.stdout or ():
            sys.stderr.write(line)
            last = line.strip() or last
    return (last or f"exit code {process.returncode}") if process.returncode else None


def _digest(folder: Path) -> str:
    """Return what the environment depends on: the file and those it refers to, our Python, and our packages' place."""
    content = (folder / REQUIREMENTS).read_bytes()
    digest = hashlib.sha256(repr((sys.version, sys.executable, _ours(), str(_PACKAGE), content)).encode())
    for name in _OTHER_FILES.findall(content.decode(errors="replace")):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:32]
