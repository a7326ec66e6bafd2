"""Requests -> batches under a padded-token budget -> one entry per request, however badly some of them behave.

In three steps, for two threads: what comes next is made ready, and what has been answered is written down, beside the
thread that calls the model.
"""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from orchestrator.worker.encoding import completed
from orchestrator.worker.entries import failed
from orchestrator.worker.generation import new_tokens
from orchestrator.worker.lifeline import leave
from orchestrator.worker.model import (
    Model,
    Parameters,
    PreparedInput,
    Rejected,
    as_rejected,
    is_out_of_memory,
)
from orchestrator.worker.remembered import RememberedBudgets
from orchestrator.worker.requests import Group, Groups, unfold
from orchestrator.worker.seeds import seed_of, sow, without_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.worker.budget import BatchBudget

_CALL = 32  # a call costs about as much as this part of its budget would in padding
_STEP = 256  # a step of generation reads all the weights, too, and budgets for generation are eight times as wide ...
_STEPS = 8  # ... but padding weighs on every step, so that many steps are worth no more than this part
_BROKEN = getattr(torch, "AcceleratorError", ())  # torch < 2.8 has no name for it


@dataclass(slots=True)
class _Batch:
    """Inputs of one call, with their places. `made`: what the model is called with, where that is ready already."""

    ready: list[tuple[int, PreparedInput]]
    parameters: Parameters
    made: Any = None

    @property
    def padded(self) -> int:
        """Tokens, padding included: the longest comes first."""
        return self.ready[0][1].length * len(self.ready)


@dataclass(slots=True)
class BatchWork:
    """Requests that came together, on their way through the three steps."""

    entries: list[bytes]
    budget: BatchBudget
    cut_by: int
    batches: list[_Batch] = field(default_factory=list)
    seeded: list[tuple[int, int, object, Parameters]] = field(default_factory=list)  # seed, place, value
    outputs: list[tuple[int, object, int | None]] = field(
        default_factory=list
    )  # place, output, what its input was cut to
    tokens: int = 0  # in calls that went well, padding not counted
    seconds: float = 0.0

    def reject(self, place: int, reason: Rejected) -> None:
        """There will be no answer."""
        self.entries[place] = failed(reason.kind, str(reason))


class BatchedModel:
    """Calls a model with batches of like length. The budget halves when a batch does not fit in memory."""

    def __init__(self, model: Model, about: Mapping[str, object] | None = None) -> None:
        self.model = model
        self._budgets = RememberedBudgets(model.budget, about or {})
        self._preparing = threading.Lock()  # what has a seed is made ready in the model's own thread
        self.budget = model.budget  # of the latest request, for whoever looks

    @property
    def info(self) -> Mapping[str, object]:
        """What there is to say of the model."""
        return self.model.info

    def answer(self, requests: Sequence[object], shared: Parameters) -> list[bytes]:
        """All three steps at once."""
        work = self.prepare(requests, shared)
        self.compute(work)
        return self.entries(work)

    def prepare(self, requests: Sequence[object], shared: Parameters, *, tune: bool = False) -> BatchWork:
        """First step, beside the model: batches that it can be called with at once.

        `tune`: try out, too, how wide batches are best. What is drawn by chance is left for the model's own thread,
        which is where the seed is sown.
        """
        budget = self._budgets.of(shared, tune=tune)
        work = BatchWork([b""] * len(requests), budget, budget.now)
        groups = Groups()
        for place, request in enumerate(requests):
            try:
                groups.add(place, *unfold(request, shared, self.model.task))
            except Exception as error:
                work.reject(place, as_rejected(error))
        for together in groups:
            self._prepare_group(together, work)
        for batch in work.batches:
            with self._preparing:
                _collate_ahead(self.model, batch)
        return work

    def compute(self, work: BatchWork) -> None:
        """Second step, in the model's thread: call it until every request has an output or a reason for having none."""
        for batch in work.batches:
            self._settle(batch, work)
        for seed, place, value, parameters in work.seeded:  # alone: what one draws depends on how many draw beside it
            sow(seed)
            for batch in self._ready(Group(parameters, [place], [value]), work):
                self._settle(batch, work)
        work.batches.clear()
        work.budget.took(work.cut_by, work.tokens, work.seconds)
        self._budgets.keep(work.budget)
        self.budget = work.budget.value

    def entries(self, work: BatchWork) -> list[bytes]:
        """Third step, beside the model.

        One JSON entry per request, in order: {"output": ...} or {"error": {"kind", "message"}}; with "input_cut"
        where the model was given only so many tokens of the input.
        """
        for place, output, cut in work.outputs:
            work.entries[place] = completed(output, input_cut=cut)
        return work.entries

    def _prepare_group(self, together: Group, work: BatchWork) -> None:
        try:
            seed = seed_of(self.model.task, together.parameters)
        except Rejected as error:
            for place in together.places:
                work.reject(place, error)
            return
        together.parameters = without_seed(together.parameters)
        if seed is None:
            work.batches += self._ready(together, work)
        else:
            work.seeded += [
                (seed, place, value, together.parameters)
                for place, value in zip(together.places, together.values, strict=True)
            ]

    def _ready(self, together: Group, work: BatchWork) -> list[_Batch]:
        """Batches of these. Where the model raises over them, each is made ready alone, so only the guilty fail."""
        try:
            with self._preparing:
                prepared = self.model.prepare(together.values, together.parameters)
        except BaseException as error:
            if len(together.places) > 1:
                return [batch for alone in together.one_by_one() for batch in self._ready(alone, work)]
            prepared = [as_rejected(error)]
        ready: list[tuple[int, PreparedInput]] = []
        for place, made in zip(together.places, prepared, strict=True):
            if isinstance(made, Rejected):
                work.reject(place, made)
            else:
                ready.append((place, made))
        call = _cost_of_a_call(work.cut_by, new_tokens(self.model.task, together.parameters))
        return [_Batch(batch, together.parameters) for batch in _cut(ready, work.cut_by, call)]

    def _settle(self, batch: _Batch, work: BatchWork) -> None:
        """Call the model; where it raises, call it with each half, down to the one input that is to blame."""
        alone = len(batch.ready) == 1
        if alone or batch.padded <= work.budget.ceiling:
            trouble = self._called(batch, work)
            if trouble is None:
                return
            reason, crowded = trouble
            if alone:
                work.reject(batch.ready[0][0], reason)
                return
            if crowded:  # only here, past the except block, have the failed call's tensors been let go
                work.budget.crowded(batch.padded)
                _free_memory()
        middle = len(batch.ready) // 2
        for half in (batch.ready[:middle], batch.ready[middle:]):
            self._settle(_Batch(half, batch.parameters), work)

    def _called(self, batch: _Batch, work: BatchWork) -> tuple[Rejected, bool] | None:
        """Why there is no answer, and whether that was for lack of memory; None where all is well."""
        made, batch.made = batch.made, None  # it is not kept while halves of it are called
        begun = time.perf_counter()
        try:
            if made is None:
                with self._preparing:
                    made = self.model.collate([ready.value for _, ready in batch.ready], batch.parameters)
            outputs = self.model.call(made, batch.parameters)
            work.outputs += [(place, out, ready.cut) for (place, ready), out in zip(batch.ready, outputs, strict=True)]
        except BaseException as error:
            reason, crowded = as_rejected(error), is_out_of_memory(error)
            if isinstance(error, _BROKEN) and not crowded:
                leave(f"the accelerator failed: {reason}")
            return reason, crowded
        work.seconds += time.perf_counter() - begun
        work.tokens += sum(ready.length for _, ready in batch.ready)
        return None


def _cost_of_a_call(budget: int, steps: int | None) -> int:
    """The padded tokens that cost as much. `steps`: tokens that it generates; None where it answers at once."""
    return budget // _CALL if steps is None else min(budget // _STEPS, budget // _STEP * steps)


def _cut(ready: list[tuple[int, PreparedInput]], budget: int, call: int) -> Iterator[list[tuple[int, PreparedInput]]]:
    """The cheapest way to cut them, where a batch costs its padded tokens and `call` more.

    Longest first, so that the first of a batch is as wide as the batch gets.
    """
    ready.sort(key=lambda entry: entry[1].length, reverse=True)
    cost, ends = np.zeros(len(ready) + 1, np.int64), [0] * len(ready)
    for start in reversed(range(len(ready))):  # cost[start]: of all from there on, cut in the best way
        longest = max(1, ready[start][1].length)
        most = max(1, min(len(ready) - start, budget // longest))
        costs = call + longest * np.arange(most, 0, -1) + cost[start + most : start : -1]  # widest first: it wins ties
        best = int(costs.argmin())
        cost[start], ends[start] = costs[best], start + most - best
    start = 0
    while start < len(ready):
        yield ready[start : ends[start]]
        start = ends[start]


def _collate_ahead(model: Model, batch: _Batch) -> None:
    """What cannot be made now is tried again where its turn comes, and told there."""
    try:
        batch.made = model.collate([ready.value for _, ready in batch.ready], batch.parameters)
    except BaseException:
        batch.made = None


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
