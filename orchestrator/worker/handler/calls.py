"""Calls a handler with stored requests: one entry per request, and a request that fails affects no other."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import orjson

from orchestrator import exact_json
from orchestrator.worker.entries import completed, failed
from orchestrator.worker.handler.answer import written
from orchestrator.worker.handler.data import from_request
from orchestrator.worker.handler.failures import judged
from orchestrator.worker.handler.load import Handler, import_handler
from orchestrator.worker.own_modules import import_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from orchestrator.worker.handler.data import Data
    from orchestrator.worker.model import ModelSettings, Parameters

    Placed: TypeAlias = list[tuple[int, Data]]


def load_handler(settings: ModelSettings) -> Calls:
    """The handler, ready to be called. Made in the thread that will call it. `LoadFailed` where that cannot be."""
    folder = Path(settings.model).absolute()
    import_modules(settings.imports)
    return Calls(Handler(import_handler(folder), folder), settings.task or None)


class Calls:
    """Calls a handler once per request, or once for many if it declares that it takes lists."""

    def __init__(self, handler: Handler, task: str | None) -> None:
        self.handler = handler
        self.task = task
        self.info: Mapping[str, object] = {
            "task": task,
            "model": handler.folder.name,
            "handler": True,
            "max_batch_size": handler.most or 1,
        }

    def answer(self, requests: Sequence[object], shared: Parameters) -> list[bytes]:
        """Return one JSON entry per request, in order: {"output": ...} or {"error": {"kind", "message"}}."""
        entries = [b""] * len(requests)
        alike: dict[bytes, Placed] = {}
        for place, request in enumerate(requests):
            try:
                data = from_request(request, copy.deepcopy(shared), self.task)
                if self.handler.most is None or "inputs" not in data:
                    entries[place] = self._one(data)
                else:
                    alike.setdefault(_all_but_inputs(data), []).append((place, data))
            except Exception as error:
                entries[place] = self._failed(error)
        for batch in _batches(alike.values(), self.handler.most or 1):
            self._settle(batch, entries)
        return entries

    def _one(self, data: Data) -> bytes:
        try:
            return completed(written(self.handler(data)))
        except BaseException as error:
            return self._failed(error)

    def _settle(self, batch: Placed, entries: list[bytes]) -> None:
        """Call with all inputs; if that raises, with each half, down to the offending input."""
        try:
            answers = self._together([data for _, data in batch])
        except BaseException as error:
            if len(batch) == 1:
                entries[batch[0][0]] = self._failed(error)
                return
            middle = len(batch) // 2
            self._settle(batch[:middle], entries)
            self._settle(batch[middle:], entries)
            return
        for (place, _), answer in zip(batch, answers, strict=True):
            try:
                entries[place] = completed(written(answer))
            except Exception as error:
                entries[place] = self._failed(error)

    def _together(self, batch: Sequence[Data]) -> Sequence[object]:
        """Make one call for data that differ only in their inputs. They are copied, as a handler may modify them."""
        data = copy.deepcopy({**batch[0], "inputs": [data["inputs"] for data in batch]})
        answers = self.handler(data)
        if not isinstance(answers, list | tuple) or len(answers) != len(batch):
            got = f"{len(answers)} answers" if isinstance(answers, list | tuple) else f"a {type(answers).__name__}"
            raise TypeError(f"a handler with max_batch_size answers a list, one for each input: {got} for {len(batch)}")
        return answers

    def _failed(self, error: BaseException) -> bytes:
        return failed(*judged(error, self.handler.folder))


def _all_but_inputs(data: Data) -> bytes:
    """Return what requests in one list have to share."""
    return exact_json.dumps({**data, "inputs": None}, option=orjson.OPT_SORT_KEYS)


def _batches(groups: Iterable[Placed], most: int) -> Iterator[Placed]:
    for group in groups:
        yield from (group[start : start + most] for start in range(0, len(group), most))
