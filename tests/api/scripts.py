"""Plain scripts that use the Python API, each as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests.commands import Ended, Running
from tests.nursery import Forked, as_in_a_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Workplace

_PRELUDE = """
import asyncio, signal, sys, threading
from pathlib import Path
from orchestrator import Backoff, Job, Policy, arun, connect, run
from orchestrator.endpoints import CommandEndpoint, HttpEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource, JsonlSource

def say(*words):
    print(*words, flush=True)

def job_of(name="talk", endpoint=HttpEndpoint({url!r}), grace=600.0, **settings):
    policy = Policy(concurrency=4, grace=grace, backoff=Backoff(first=0.01))
    sink = JsonlSink(f"{{name}}.jsonl", keep=["text"])
    given = dict(source=JsonlSource("rows.jsonl", id="id"), endpoint=endpoint, sink=sink, policy=policy)
    return Job(name, **given | settings)
"""


@contextmanager
def started(workplace: Workplace, code: str, stderr: int = subprocess.PIPE) -> Iterator[Running]:
    """Start a script in the workplace, with its ledger; it is killed when the block ends.

    With a `stderr` of its own it is a new interpreter, not a fork of the nursery.
    """
    script = workplace.folder / "script.py"
    script.write_text(_PRELUDE.format(url=workplace.url) + code)
    environment = workplace.environment() | {"ORCHESTRATOR_DB": str(workplace.ledger)}
    process: Forked | subprocess.Popen[str]
    if stderr == subprocess.PIPE:
        process = Forked([], environment, workplace.folder, script)
    else:
        process = subprocess.Popen(
            [sys.executable, str(script)],
            env=environment,
            cwd=workplace.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=as_in_a_terminal,  # noqa: PLW1509 - this process has no other threads that matter
        )
    try:
        yield Running(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        if process.stderr is not None:
            sys.stderr.write(process.communicate()[1])  # shown if the test fails


def ran(workplace: Workplace, code: str) -> Ended:
    """Run a script to its end."""
    with started(workplace, code) as running:
        return running.end()
