"""Reads how full a model server is from its `/metrics`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# We do not use prometheus_client's parser: it rejects the whole text if it cannot read one line, and it takes more than
# 15 s for a line with 100,000 labels (1.3 MB), which this reads in about 1 s.
# Name, labels, value; a timestamp or an exemplar may follow. Label values may contain braces and escaped quotes.
_LINE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]+(\S+)')
_LABEL = re.compile(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"')
# In SGLang, every rank of a tensor- or pipeline-parallel replica reports the one scheduler that they share.
_SAME_SCHEDULER = frozenset({"tp_rank", "pp_rank", "moe_ep_rank", "pid"})


@dataclass(frozen=True, slots=True)
class EngineSample:
    """One reading. A field is None if the server does not report it.

    `kv_use`: fraction (0 to 1) of the KV cache in use, of the fullest replica. `waiting`, `running`: requests, summed
    over all replicas. `preemptions`: requests evicted from the cache to start over, counted since the server's start.
    """

    kv_use: float | None = None
    waiting: int | None = None
    running: int | None = None
    preemptions: int | None = None


@dataclass(frozen=True, slots=True)
class _Names:
    """The metric names of one kind of server, the newest name first."""

    kv_use: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    preemptions: tuple[str, ...] = ()


ENGINES: dict[str, _Names] = {
    "vllm": _Names(
        kv_use=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),  # the second until 0.10
        waiting=("vllm:num_requests_waiting",),
        running=("vllm:num_requests_running",),
        preemptions=("vllm:num_preemptions_total", "vllm:num_preemptions"),
    ),
    "sglang": _Names(
        kv_use=("sglang:token_usage",),
        waiting=("sglang:num_queue_reqs",),
        running=("sglang:num_running_reqs",),
        # `num_retracted_reqs` alone is a gauge of the last step in some releases: not a count since the start
        preemptions=("sglang:num_retracted_requests_total", "sglang:num_retracted_reqs_total"),
    ),
    "tgi": _Names(waiting=("tgi_queue_size",), running=("tgi_batch_current_size",)),
    "tei": _Names(waiting=("te_queue_size",), running=("te_batch_current_size",)),
    "toolkit": _Names(waiting=("inf_queue_size",), running=("inf_batch_current_size",)),
    "llama.cpp": _Names(
        kv_use=("llamacpp:kv_cache_usage_ratio",),
        waiting=("llamacpp:requests_deferred",),
        running=("llamacpp:requests_processing",),
    ),
}


def engine_sample(text: str) -> EngineSample | None:
    """Read the Prometheus text of a server's `/metrics`; return None if the server is of no known kind.

    Never raises; lines that cannot be read are skipped.
    """
    wanted = {name for names in ENGINES.values() for field in _fields(names) for name in field}
    series = _series(text, wanted)
    for names in ENGINES.values():
        kv_use, waiting, running, preemptions = (_values(series, field) for field in _fields(names))
        if waiting is None and running is None:
            continue
        return EngineSample(
            kv_use=None if kv_use is None else min(1.0, max(kv_use)),
            waiting=None if waiting is None else round(sum(waiting)),
            running=None if running is None else round(sum(running)),
            preemptions=None if preemptions is None else round(sum(preemptions)),
        )
    return None


def _fields(names: _Names) -> tuple[tuple[str, ...], ...]:
    return names.kv_use, names.waiting, names.running, names.preemptions


def _series(text: str, wanted: set[str]) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Return name -> labels -> value. For ranks that share a scheduler, this is their greatest value."""
    series: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or match[1] not in wanted:
            continue
        value = _number(match[3])
        if value is None:
            continue
        labels = frozenset(pair for pair in _LABEL.findall(match[2] or "") if pair[0] not in _SAME_SCHEDULER)
        of_name = series.setdefault(match[1], {})
        of_name[labels] = max(value, of_name.get(labels, value))
    return series


def _values(series: dict[str, dict[frozenset[tuple[str, str]], float]], names: Iterable[str]) -> Iterable[float] | None:
    """Return the values of the first name that is present: a server with two of them reports the same thing twice."""
    return next((list(series[name].values()) for name in names if name in series), None)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
