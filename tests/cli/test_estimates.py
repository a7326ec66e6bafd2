"""`plan --canary` and `run --canary` on an endpoint that bills, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.commands import rows
from tests.hf_service import hf_service

if TYPE_CHECKING:
    from tests.commands import Workplace
    from tests.servers import InferenceServer

PRELUDE = "from orchestrator.endpoints import HuggingFaceEndpoint"
ENDPOINT = "HuggingFaceEndpoint('acme/batch', price_per_hour=3600.0)"  # a dollar a second


def test_a_canary_is_paid_kept_and_says_what_the_rest_costs(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(1000)))
    with hf_service(namespace="acme") as service:
        service.add("batch")
        service.behave(delays={"": 0.2})
        env = {"ORCHESTRATOR_HF_API_URL": f"{service.url}/v2", "HF_TOKEN": service.token}
        job = workplace.job(prelude=PRELUDE, endpoint=ENDPOINT, policy="concurrency=4, max_cost=45.0")
        planned = workplace.run("plan", "--json", "--canary", "8", job, env=env)
        assert planned.code == 0, planned.err
        plan = planned.json
        assert (plan["reused"], plan["to_ask"]) == (8, 992)
        assert plan["estimate"]["awake_seconds"] > 40
        assert plan["estimate"]["cost"] == pytest.approx(plan["estimate"]["awake_seconds"])
        assert plan["estimate"]["basis"].startswith("8 requests of run 1, at 4 in flight")
        assert len(service.calls("POST /data/")) == 8
        assert service.endpoint("batch").state == "paused"
        assert not workplace.output.exists()
        shown = workplace.run("plan", job, env=env).out.splitlines()
        assert shown[0] == "992 new, 0 edited, 8 reused, 0 to retry"
        assert shown[1].startswith("estimate: about ")
        ended = workplace.run("run", "--quiet", "--canary", "8", job, env=env)
        assert ended.code == 4
        assert ended.line.startswith("orchestrator: 984 more items would cost about $")
        assert "policy.max_cost is $45.00" in ended.line
        assert len(service.calls("POST /data/")) == 16  # the answers of the first canary were kept
        assert service.endpoint("batch").state == "paused"


def test_answers_that_are_charged_and_asked_once_are_known_before_any_run(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows([*rows(range(100)), *({"id": f"again {n}", "text": "text of 1"} for n in range(900))])
    priced = workplace.job(endpoint=f"HttpEndpoint({server.url!r}, price_per_request=0.01)", policy="")
    estimate = workplace.run("plan", "--json", priced).json["estimate"]
    assert (estimate["cost"], estimate["seconds"]) == (1.0, None)
    assert workplace.run("run", "--quiet", priced).code == 0
    assert server.stats().requests == 100
    workplace.write_rows(rows(range(1000, 1100)))
    slow = workplace.job(
        endpoint=f"HttpEndpoint({server.url!r}, price_per_request=0.01)", policy="requests_per_minute=10"
    )
    estimate = workplace.run("plan", "--json", slow).json["estimate"]
    assert (estimate["cost"], estimate["seconds"]) == (1.0, 600.0)
