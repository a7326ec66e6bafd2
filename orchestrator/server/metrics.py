"""`/metrics`: the ledger for Prometheus, read from it at each scrape. Nothing is kept in this process.

No series is about one job, run or batch: a thousand batches make no more series than one. Labels are endpoints,
causes and states.

There is a `LedgerCollector` for each scrape, over a `LedgerMetrics` (`domain/metrics.py`) that `store/metrics.py`
reads at that moment. Counters are the ledger's running totals (`domain/running_totals.py`): a process adds what its
`Progress` has not `counted` yet in the transaction of each reading, and `prune` adds the costs of the awake windows
that it deletes, so no counter goes down.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from orchestrator.domain.errors import FailureKind, LossCause
from orchestrator.domain.running_totals import LATENCY_LABELS, Total
from orchestrator.server.context import context_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.domain.metrics import LedgerMetrics
    from orchestrator.domain.running_totals import RunningTotals

    Samples = Iterable[tuple[tuple[str, ...], float]]  # of a metric: the values of its labels, and a number

_PREFIX = "orchestrator_"
_ALL = "Of all runs since the ledger was made or upgraded; pruning does not lower it."


def routes() -> list[web.RouteDef]:
    """Return the route of the metrics."""
    return [web.get("/metrics", _metrics)]


async def _metrics(request: web.Request) -> web.Response:
    metrics = await context_of(request).app.store.metrics.now()
    try:
        encode, content_type = choose_encoder(",".join(request.headers.getall("Accept", [])))
    except (TypeError, ValueError):  # how it reports a version that it cannot parse
        encode, content_type = choose_encoder("")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LedgerCollector(metrics))
    return web.Response(body=encode(registry), headers={"Content-Type": content_type})


class LedgerCollector(Collector):
    """The metrics of one scrape."""

    def __init__(self, metrics: LedgerMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield from _totals(self._metrics.totals)
        yield from _endpoints(self._metrics)
        yield from _now(self._metrics)


def _totals(totals: RunningTotals) -> Iterator[Metric]:
    """Yield what only grows. Every known cause is there from the beginning, so that its first increase is seen."""
    yield _counter("requests", f"Requests made. {_ALL}", (), [((), totals.of(Total.REQUESTS))])
    yield _counter(
        "requests_lost",
        f"Requests that got no answer; their items are asked again without counting an attempt. {_ALL}",
        ("cause",),
        [((cause,), totals.of(Total.LOST, cause)) for cause in LossCause],
    )
    yield _counter(
        "responses",
        f"Requests by the HTTP status of their response, or none if there was no response. {_ALL}",
        ("status",),
        _labelled(totals, Total.STATUS),
    )
    yield HistogramMetricFamily(
        f"{_PREFIX}request_duration_seconds",
        f"Time from sending a request to its answer; requests that failed are not in it. {_ALL}",
        buckets=list(
            zip(
                [*LATENCY_LABELS[:-1], "+Inf"],
                accumulate(totals.of(Total.LATENCY, bound) for bound in LATENCY_LABELS),
                strict=True,
            )
        ),
        sum_value=totals.of(Total.LATENCY_SECONDS),
    )
    yield _counter(
        "tokens",
        f"Tokens of requests and answers, as servers report them. {_ALL}",
        ("direction",),
        [((direction,), totals.of(Total.TOKENS, direction)) for direction in ("in", "out")],
    )
    discarded = [(("discarded", cause), totals.of(Total.DISCARDED, cause)) for cause in FailureKind]
    yield _counter(
        "items_settled",
        f"Items settled by asking, their twins included; discarded ones by the cause of their last failure. {_ALL}",
        ("outcome", "cause"),
        [(("completed", ""), totals.of(Total.COMPLETED)), *discarded],
    )
    yield _counter(
        "attempts_retried",
        f"Failed attempts after which the item is asked again. {_ALL}",
        ("cause",),
        [((cause,), totals.of(Total.RETRIED, cause)) for cause in FailureKind],
    )
    yield SummaryMetricFamily(
        f"{_PREFIX}commit_seconds",
        f"Time of commits of outcomes to the ledger, including waits for other writers. {_ALL}",
        count_value=int(totals.of(Total.COMMITS)),
        sum_value=totals.of(Total.COMMIT_SECONDS),
    )


def _labelled(totals: RunningTotals, total: Total) -> Samples:
    """Return the values of a total whose labels are not known beforehand."""
    return [((label,), value) for (name, label), value in sorted(totals.values.items()) if name is total]


def _endpoints(metrics: LedgerMetrics) -> Iterator[Metric]:
    """Yield the cost of each endpoint that bills: for the time that it was awake, and for answers."""
    endpoints = metrics.endpoints.items()
    yield _counter(
        "endpoint_awake_seconds",
        "Time for which the endpoint was awake: from each resume until it was seen asleep. Pruning does not lower it.",
        ("endpoint",),
        [((name,), one.seconds) for name, one in endpoints],
    )
    yield _counter(
        "endpoint_cost_dollars",
        "Cost of that time, without awake windows whose price is not known. Pruning does not lower it.",
        ("endpoint",),
        [((name,), one.dollars) for name, one in endpoints if one.dollars is not None],
    )
    yield _counter(
        "endpoint_charges_dollars",
        f"What endpoints charged for answers that are paid by the request or the token. {_ALL}",
        ("endpoint",),
        _labelled(metrics.totals, Total.CHARGES),
    )
    yield _gauge(
        "endpoint_awake",
        "1 if the endpoint is awake, or has not been seen asleep yet.",
        ("endpoint",),
        [((name,), one.awake) for name, one in endpoints],
    )


def _now(metrics: LedgerMetrics) -> Iterator[Metric]:
    """Yield what rises and falls."""
    items = [((state,), number) for state, number in metrics.items.items()]
    queue = [((state,), number) for state, number in metrics.queue.items()]
    debts = "Endpoints that are owed a pause and that nothing uses: they may cost money until `orchestrator sweep`."
    yield _gauge("items", "Unsettled items of runs that have not ended.", ("state",), items)
    yield _gauge("requests_in_flight", "Requests in flight, as of 5 s ago at most.", (), [((), metrics.in_flight)])
    yield _gauge("runs_executing", "Runs that a process executes.", (), [((), metrics.executing)])
    yield _gauge("queue_runs", "Queued runs that wait: due now, due later, or held by the user.", ("state",), queue)
    yield _gauge("debts", debts, (), [((), metrics.debts)])


def _counter(name: str, documentation: str, labels: Sequence[str], samples: Samples) -> Metric:
    return _filled(CounterMetricFamily(_PREFIX + name, documentation, labels=labels), samples)


def _gauge(name: str, documentation: str, labels: Sequence[str], samples: Samples) -> Metric:
    return _filled(GaugeMetricFamily(_PREFIX + name, documentation, labels=labels), samples)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, samples: Samples) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    return family
