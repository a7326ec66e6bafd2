"""Validation of a batch file: every line is read and checked, and all bad lines are listed."""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import orjson

from orchestrator import exact_json
from orchestrator.domain.batch_lines import MOST_ERRORS, BatchError, Validated, duplicate, error_in, inputs_of, too_many
from orchestrator.domain.errors import OrchestratorError, UsageError
from orchestrator.sources.reading import filled_lines, opened, reading
from orchestrator.store import Seen

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from orchestrator.domain.batch_lines import Route

_TOGETHER = 500  # ids that are looked up together


def validated(path: Path, route: Route, served: Container[str], most: int) -> Validated:
    """Read a file as a stream and check every line. Blocking: a large file is for a child process.

    `served`: the models that can be asked. `most`: requests that a batch may have. Raises `UsageError` if the file
    cannot be read.
    """
    with opened(path) as stream, reading(path), Seen.open() as ids:
        checker = _Checker(route, served, ids)
        for line, content in filled_lines(stream):
            checker.check(line, content)
        return checker.result(most)


def custom_ids(path: Path, skipped: int) -> Iterator[str]:
    """Yield the ids of a valid file's requests, in its order, without this many at its beginning. Blocking."""
    with opened(path) as stream, reading(path):
        for _, content in islice(filled_lines(stream), skipped, None):
            yield exact_json.loads(content)["custom_id"]


async def validated_by_child(path: Path, route: Route, served: Iterable[str], most: int) -> Validated:
    """Call `validated` in a child process, which ends if this is cancelled. What it cannot read is an error, too.

    A pool of processes would execute this process's main module again, which may be a user's script. Raises
    `OrchestratorError` if the child is killed, after which it can be tried again.
    """
    asked = orjson.dumps({"path": str(path), "route": route, "served": list(served), "most": most})
    command = [sys.executable, "-P", "-c", f"from {__name__} import main; main()"]
    done = await anyio.run_process(command, input=asked, check=False, start_new_session=True)
    if done.returncode < 0:  # a service manager stops all processes at once; the file is not at fault
        raise OrchestratorError(f"the process that validated {path} was killed by signal {-done.returncode}")
    if done.returncode != 0:
        message = f"The input file could not be validated: its process ended with exit code {done.returncode}."
        return Validated(0, None, (BatchError("server_error", message),))
    found = orjson.loads(done.stdout)
    return Validated(found["total"], found["model"], tuple(BatchError(**error) for error in found["errors"]))


def main() -> None:
    """Validate the file that standard input names, and print the result as JSON."""
    asked = orjson.loads(sys.stdin.buffer.read())
    try:
        found = validated(Path(asked["path"]), asked["route"], frozenset(asked["served"]), asked["most"])
    except UsageError as error:
        found = Validated(0, None, (BatchError("invalid_request", str(error)),))
    sys.stdout.buffer.write(orjson.dumps(asdict(found)))


class _Checker:
    """Checks one line after the other. Keeps neither the lines nor more than `MOST_ERRORS` errors."""

    def __init__(self, route: Route, served: Container[str], ids: Seen) -> None:
        self._route = route
        self._served = served
        self._ids = ids
        self._model: str | None = None
        self._total = 0
        self._inputs = 0
        self._bad = 0
        self._errors: list[BatchError] = []
        self._named: list[tuple[int, str]] = []  # lines since the last look, with their ids
        self._found: dict[int, BatchError] = {}  # what is wrong with lines since the last look

    def check(self, line: int, content: bytes) -> None:
        """Check the line with this number."""
        self._total += 1
        try:
            request = exact_json.loads(content)
        except ValueError:
            request = None
        self._inputs += inputs_of(request, self._route)
        error = error_in(request, line, self._route, self._served, self._model)
        if error is not None:
            self._found[line] = error
        elif self._model is None:
            self._model = request["body"]["model"]
        match request:
            case {"custom_id": str(custom_id)}:
                self._named.append((line, custom_id))
        if self._total % _TOGETHER == 0:
            self._look_up()

    def result(self, most: int) -> Validated:
        """Return what has been found after the last line. `most`: requests that a batch may have."""
        self._look_up()
        if (more := self._bad - len(self._errors)) > 0:
            message = f"The first {MOST_ERRORS:,} invalid lines are listed; {more:,} more are invalid."
            self._errors.append(BatchError("too_many_errors", message))
        if not self._total:
            self._errors.append(BatchError("empty_file", "The input file contains no requests."))
        if (error := too_many(self._total, self._inputs, most)) is not None:
            self._errors.append(error)
        return Validated(self._total, self._model, tuple(self._errors))

    def _look_up(self) -> None:
        """Find ids that earlier lines have. A line that is wrong otherwise has that error alone."""
        counts = self._ids.count([custom_id for _, custom_id in self._named], self._total)
        for (line, custom_id), (_, times) in zip(self._named, counts, strict=True):
            if times > 1:
                self._found.setdefault(line, duplicate(custom_id, line))
        self._bad += len(self._found)
        self._errors += [self._found[line] for line in sorted(self._found)][: MOST_ERRORS - len(self._errors)]
        self._named.clear()
        self._found.clear()
