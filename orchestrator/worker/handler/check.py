"""python -m orchestrator.worker.handler.check: calls a handler once, step by step; predicts Hugging Face's reaction.

Each step is a line of JSON on standard output. What the handler prints is on standard error.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import exact_json
from orchestrator.worker.handler.answer import written
from orchestrator.worker.handler.data import from_body, from_request
from orchestrator.worker.handler.environment import change_environment
from orchestrator.worker.handler.failures import judged
from orchestrator.worker.handler.load import Handler, import_handler
from orchestrator.worker.handler.packages import REQUIREMENTS, absent_there
from orchestrator.worker.lifeline import die_with
from orchestrator.worker.model import LoadFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.worker.handler.data import Data

_TAKEN_THERE = ("application/json", "application/json; charset=UTF-8")  # of all ways to write it, literally
_SHOWN = 200  # characters of an answer


def main() -> None:
    """Run the steps up to the first that fails."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.worker.handler.check", description=__doc__)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--task")
    payload = parser.add_mutually_exclusive_group(required=True)
    payload.add_argument("--payload", help="JSON, as it stands in a job or in a request's body")
    payload.add_argument("--file", type=Path, help="the request's body")
    parser.add_argument("--content-type", default="application/json")
    parser.add_argument("--install-requirements", action="store_true")
    parser.add_argument("--parent", type=int, required=True, help="the process that starts this one")
    arguments = parser.parse_args()
    die_with(arguments.parent)
    if arguments.install_requirements:
        try:
            change_environment(arguments.model)
        except LoadFailed as failure:
            sys.stdout.write(_step("install", "failed", str(failure), None))
            return
    Check(arguments).run()


class Check:
    """The steps; each builds on those before it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._folder: Path = arguments.model.absolute()
        self._task: str | None = arguments.task
        self._payload: str | None = arguments.payload
        self._file: Path | None = arguments.file
        self._content_type: str = arguments.content_type
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # so that what the handler prints is not taken for a step
        self._kind: type[Any]
        self._handler: Handler
        self._answer: object = None
        self._findings: list[str] = []

    def run(self) -> None:
        """Take them."""
        steps: dict[str, Callable[[], str]] = {
            "import": self._import,
            "init": self._init,
            "read": self._read,
            "call": self._call,
            "json": self._json,
            "list": self._list,
            "hub": self._hub,
        }
        for name, step in steps.items():
            begun = time.perf_counter()
            try:
                said = step()
            except LoadFailed as failure:
                self._tell(name, "failed", str(failure), begun)
                return
            except BaseException as error:
                kind, words = judged(error, self._folder)
                whose = "bad input: " if kind == "rejected" and name in {"call", "list"} else ""
                self._tell(name, "failed", whose + words, begun)
                return
            if said:
                verdict = "failed" if name == "hub" and self._findings else "ok"
                self._tell(name, verdict, said, begun)

    def _tell(self, name: str, verdict: str, said: str, begun: float) -> None:
        self._out.write(_step(name, verdict, said, None if name == "hub" else time.perf_counter() - begun))
        self._out.flush()

    # -- the steps: each returns its message, or "" if it does not apply ----------------------------------------------

    def _import(self) -> str:
        self._kind = import_handler(self._folder)
        return "handler.py has a class EndpointHandler"

    def _init(self) -> str:
        self._handler = Handler(self._kind, self._folder)
        return "EndpointHandler(path) was made"

    def _read(self) -> str:
        data = self._data()
        if self._content_type not in _TAKEN_THERE and self._content_type.startswith("application/json"):
            self._findings.append(
                f"the content type {self._content_type!r} is refused (400): it is compared literally; send "
                f"{_TAKEN_THERE[0]}"
            )
        kind = type(data.get("inputs", data.get("instances"))).__name__
        return f"inputs: {kind}{''.join(f', {key}' for key in data if key != 'inputs')}"

    def _data(self) -> Data:
        """Return the data anew for each call, because a handler may modify it."""
        if self._file is not None:
            return from_body(self._file.read_bytes(), self._content_type, self._file.name)
        return from_request(exact_json.loads(self._payload or ""), {}, self._task)

    def _call(self) -> str:
        if inspect.iscoroutinefunction(self._kind.__call__):
            self._findings.append("async __call__ is not awaited there (400): make it a plain def")
        self._answer = self._handler(self._data())
        return f"answered {type(self._answer).__name__}"

    def _json(self) -> str:
        text = written(self._answer).decode()
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"

    def _list(self) -> str:
        """With max_batch_size, a run sends lists, while Hugging Face passes on what the client sent."""
        data = self._data()
        if self._handler.most is None or "inputs" not in data:
            return ""
        answer = self._handler({**data, "inputs": [data["inputs"]]})
        if not isinstance(answer, list | tuple) or len(answer) != 1:
            raise LoadFailed(
                f"with max_batch_size, a list of one input needs a list of one answer, not {answer!r:.200}"
            )
        written(answer[0])
        return f"a list of inputs is answered with a list, up to {self._handler.most} at once"

    def _hub(self) -> str:
        for module, place in absent_there(self._folder).items():
            self._findings.append(f"{module!r} ({place}) is neither in {REQUIREMENTS} nor in the image: add it")
        return "; ".join(self._findings) or "nothing found that would fail on Hugging Face"


def _step(name: str, verdict: str, said: str, seconds: float | None) -> str:
    return exact_json.dumps({"name": name, "verdict": verdict, "said": said, "seconds": seconds}).decode() + "\n"


if __name__ == "__main__":
    main()
