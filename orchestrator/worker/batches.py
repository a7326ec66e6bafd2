"""Requests -> batches under a padded-token budget -> one entry per request, however badly some of them behave."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import torch

from orchestrator.worker.encoding import completed
from orchestrator.worker.entries import failed
from orchestrator.worker.lifeline import leave
from orchestrator.worker.model import Model, Parameters, Ready, Rejected, one_line
from orchestrator.worker.requests import group, unfold
from orchestrator.worker.seeds import seed_of, sow, without_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.worker.requests import Group

_SLACK = 32  # at most this part of the budget is spent on padding; a further call costs about as much
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_BROKEN = getattr(torch, "AcceleratorError", ())  # torch < 2.8 has no name for it


class Batches:
    """Calls a model with batches of like length. The budget halves when a batch does not fit in memory."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._budget = model.budget

    @property
    def info(self) -> Mapping[str, object]:
        """What there is to say of the model."""
        return self.model.info

    def answer(self, requests: Sequence[object], shared: Parameters) -> list[bytes]:
        """One JSON entry per request, in order: {"output": ...} or {"error": {"kind", "message"}}."""
        entries = [b""] * len(requests)
        unfolded = []
        for place, request in enumerate(requests):
            try:
                unfolded.append((place, *unfold(request, shared, self.model.task)))
            except Rejected as error:
                entries[place] = failed("rejected", str(error))
        for together in group(unfolded):
            self._answer_group(together, entries)
        return entries

    def _answer_group(self, together: Group, entries: list[bytes]) -> None:
        try:
            seed = seed_of(self.model.task, together.parameters)
        except Rejected as error:
            for place in together.places:
                entries[place] = failed("rejected", str(error))
            return
        ready: list[tuple[int, Ready]] = []
        parameters = without_seed(together.parameters)
        prepared = self.model.prepare(together.values, parameters)
        for place, made in zip(together.places, prepared, strict=True):
            if isinstance(made, Rejected):
                entries[place] = failed("rejected", str(made))
            else:
                ready.append((place, made))
        if seed is None:
            for batch in self._cut(ready):
                self._settle(batch, parameters, entries)
            return
        for alone in ready:  # in a batch, what one draws depends on how many draw beside it
            sow(seed)
            self._settle([alone], parameters, entries)

    def _cut(self, ready: list[tuple[int, Ready]]) -> Iterator[list[tuple[int, Ready]]]:
        """Longest first, so that the first of a batch is as wide as the batch gets."""
        ready.sort(key=lambda entry: entry[1].length, reverse=True)
        start = 0
        while start < len(ready):
            longest, padding, end = ready[start][1].length, 0, start + 1
            while end < len(ready) and longest * (end + 1 - start) <= self._budget:
                padding += longest - ready[end][1].length
                if padding > self._budget // _SLACK:
                    break
                end += 1
            yield ready[start:end]
            start = end

    def _settle(self, batch: list[tuple[int, Ready]], parameters: Parameters, entries: list[bytes]) -> None:
        """Call the model; where it raises, call it with each half, down to the one input that is to blame."""
        try:
            outputs = self.model.call([made.value for _, made in batch], parameters)
            for (place, _), output in zip(batch, outputs, strict=True):
                entries[place] = completed(output)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is about its input
            reason, crowded = one_line(error), _out_of_memory(error)
            if isinstance(error, _BROKEN) and not crowded:
                leave(f"the accelerator failed: {reason}")
        else:
            return
        if len(batch) == 1:
            entries[batch[0][0]] = failed("rejected", reason)
            return
        if crowded:  # only here, past the except block, have the failed call's tensors been let go
            self._budget = max(1, batch[0][1].length * len(batch) // 2)
            _free_memory()
        middle = len(batch) // 2
        self._settle(batch[:middle], parameters, entries)
        self._settle(batch[middle:], parameters, entries)


def _out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
