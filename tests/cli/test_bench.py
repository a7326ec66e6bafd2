"""`orchestrator endpoints bench`: real commands against real servers, of which one records its own latencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import rows, until
from tests.endpoints.test_local_server import PROGRAM
from tests.load_server import LoadServer, load_server, percentile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commands import Ended, Workplace
    from tests.servers import InferenceServer


@pytest.fixture(scope="module")
def measured() -> Iterator[LoadServer]:
    with load_server(median=0.1, spread=0.5) as server:
        yield server


def bench(workplace: Workplace, *arguments: str | Path, code: int = 0) -> Ended:
    ended = workplace.run("endpoints", "bench", *arguments)
    assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
    return ended


def figures(workplace: Workplace, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
    found = bench(workplace, *arguments, "--json", code=code).json
    assert found["exit_code"] == code
    return dict(found["figures"]) | {"test": found}


@pytest.mark.parametrize("load", [("--rate", "100"), ("--concurrency", "10")])
def test_what_is_measured_is_what_the_server_has_recorded(
    workplace: Workplace, measured: LoadServer, load: tuple[str, str]
) -> None:
    measured.taken()
    found = figures(workplace, measured.url, "--for", "2s", *load)
    taken = measured.taken()[:]
    assert found["sent"] == found["answered"] == len(taken) - 1  # one request was sent before, to see that it works
    assert found["statuses"] == {"200": found["answered"]}
    for percent in (50, 90, 95, 99):
        # this machine may be busy; how close it is at rest is in bench/RESULTS.md
        assert found["from_sending"][f"p{percent}"] >= 0.97 * percentile(taken, percent)
        assert found["from_sending"][f"p{percent}"] <= 1.5 * percentile(taken, percent) + 0.1
    in_flight = found["requests_per_second"] * found["from_sending"]["mean"]
    assert found["mean_in_flight"] == pytest.approx(in_flight, rel=0.3)  # Little's law


def test_answers_in_parts_show_when_the_first_text_comes(workplace: Workplace, server: InferenceServer) -> None:
    server.behave(latency=0.05, writing=0.2)
    workplace.write_rows(rows(range(10)))
    chat = workplace.job(
        prelude="from orchestrator.wires import OpenAIChatWire",
        endpoint=f"HttpEndpoint({server.url!r}, wire=OpenAIChatWire('m'))",
    )
    arguments = (server.url, "--items", chat, "--stream", "--concurrency", "4", "--for", "1s")
    found = figures(workplace, *arguments)
    assert found["answered"] == found["sent"] > 0
    assert found["tokens_out_per_second"] > 0
    assert found["first_text"]["p50"] >= 0.05
    assert found["from_sending"]["p50"] - found["first_text"]["p50"] >= 0.19  # percentiles are within half a percent
    assert "first text" in bench(workplace, *arguments).out
    refused = bench(workplace, server.url, "--items", workplace.job(), "--stream", code=2)
    assert refused.line == "orchestrator: this endpoint, or its wire, has no answers in parts: leave out --stream"


def test_a_sweep_finds_how_many_requests_a_server_can_work_on_and_remembers_it(workplace: Workplace) -> None:
    page = workplace.folder / "page.html"
    with load_server(median=0.05, spread=0.0, slots=8) as server:
        workplace.make_ledger()
        arguments = (server.url, "--sweep", "--for", "6s", "--slo", "p95=30s", "--remember", "-o", page)
        found = figures(workplace, *arguments)["test"]
    knee = found["knee"]["concurrency"]
    assert knee >= 4  # and near 8, unless this machine is busy
    assert found["remembered"] == knee
    assert workplace.query("SELECT concurrency, batch_size FROM tuning") == [(knee, None)]
    assert [step["concurrency"] for step in found["steps"][:4]] == [1, 2, 4, 8]
    text = page.read_text()
    assert "Steps of the sweep" in text
    assert f"knee: {knee}" in text
    assert not any(loads in text for loads in ("src=", "href=", "url(", "<script", "@import"))


def test_runs_begin_with_what_a_sweep_has_remembered(workplace: Workplace, server: InferenceServer) -> None:
    server.behave(latency=0.02)
    workplace.write_rows(rows(range(40)))
    job = workplace.job(policy="concurrency='auto'")
    found = figures(workplace, server.url, "--items", job, "--sweep", "--for", "2s", "--remember")["test"]
    (before,) = workplace.query("SELECT shape, concurrency FROM tuning")
    assert before[1] == found["knee"]["concurrency"] == found["remembered"]
    assert workplace.run("run", job).code == 0
    assert [shape for (shape,) in workplace.query("SELECT shape FROM tuning")] == [before[0]]


def test_an_objective_that_is_missed_is_the_exit_code(workplace: Workplace, server: InferenceServer) -> None:
    server.behave(latency=0.05)
    slo = ("--slo", "p95=1ms", "--slo", "p50=1m")
    found = figures(workplace, server.url, "--concurrency", "2", "--for", "1s", *slo, code=1)
    assert [(verdict["objective"], verdict["met"]) for verdict in found["verdicts"]] == [
        ("p95=0.001s", False),
        ("p50=60s", True),
    ]
    assert found["goodput"] == 0.0
    assert not found["test"]["met"]


def test_failures_are_counted_by_cause_and_status(workplace: Workplace, server: InferenceServer) -> None:
    texts = ["good", "good, too", "poison"]
    workplace.write_rows({"id": f"i{number}", "text": text} for number, text in enumerate(texts))
    found = figures(workplace, server.url, "--for", "1s", "--items", workplace.job())
    (cause,) = found["causes"]
    assert (cause["kind"], cause["status"]) == ("rejected", 400)
    assert "poison" in cause["message"]
    assert found["statuses"] == {"200": found["answered"], "400": found["failed"]}
    assert found["failed"] == pytest.approx(found["sent"] / 3, abs=1)
    assert server.stats().asked == set(texts)


def test_a_server_that_is_overloaded_is_loaded_to_the_end(workplace: Workplace, server: InferenceServer) -> None:
    with workplace.start("endpoints", "bench", server.url, "--rate", "50", "--for", "2s", "--json") as running:
        server.wait(lambda stats: stats.requests > 5)
        server.behave(status=503)
        ended = running.end()
    assert ended.code == 0
    assert ended.json["figures"]["statuses"]["503"] > 50


def test_a_server_that_fails_otherwise_ends_the_load_test(workplace: Workplace, server: InferenceServer) -> None:
    with workplace.start("endpoints", "bench", server.url, "--concurrency", "4", "--for", "60s") as running:
        server.wait(lambda stats: stats.requests > 5)
        server.behave(status=404)
        ended = running.end()
    assert ended.code == 4
    assert "ended early" in ended.out
    assert "requests in a row failed" in ended.out


def test_a_wrong_wire_costs_one_request(workplace: Workplace, server: InferenceServer) -> None:
    server.behave(status=422)
    ended = bench(workplace, server.url, "--rate", "100", "--for", "60s", code=1)
    assert ended.line.startswith("orchestrator: the first request failed, so no more were sent: ")
    assert server.stats().requests == 1


def test_requests_without_an_answer_at_the_end_are_cut_off_and_counted(
    workplace: Workplace, server: InferenceServer
) -> None:
    server.behave(hold_after=4)
    workplace.write_rows(rows(range(5)))
    job = workplace.job(policy="grace=0.2")
    found = figures(workplace, server.url, "--items", job, "--rate", "20", "--for", "1s")
    assert found["cut_off"] == found["sent"] - found["answered"] > 0
    assert found["from_arrival"]["longest"] > 0.3
    assert found["answered"] == 3


def test_a_job_names_its_endpoint_and_the_size_of_requests(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(40)))
    job = workplace.job(policy="batch_size=8")
    found = figures(workplace, server.url, "--items", job, "--concurrency", "2", "--for", "1s")
    assert found["test"]["items_per_request"] == 8
    assert found["items_per_second"] == pytest.approx(8 * found["requests_per_second"])


def test_an_endpoint_that_charges_for_answers_is_asked_for_no_more_than_the_load_test_may_cost(
    workplace: Workplace, server: InferenceServer
) -> None:
    config = workplace.folder / "config.toml"
    config.write_text(f'[endpoints.paid]\nkind = "http"\nurl = "{server.url}"\nprice_per_request = 0.25\n')
    env = {"ORCHESTRATOR_CONFIG": str(config)}
    load = ("--for", "30s", "--concurrency", "4", "--max-cost", "2", "--json")
    ended = workplace.run("endpoints", "bench", "paid", *load, env=env)
    assert (ended.code, ended.json["ended"]) == (4, "its answers have cost $2.00, of $2.00")
    assert 2.0 <= ended.json["cost"] <= 3.0  # what was in flight may have been answered
    assert ended.json["cost_per_1000"] == 250.0
    assert workplace.run("costs", "--json", env=env).json["costs"][0]["dollars"] == ended.json["cost"]


def test_charges_are_in_the_ledger_while_it_goes_on(workplace: Workplace, server: InferenceServer) -> None:
    config = workplace.folder / "config.toml"
    config.write_text(f'[endpoints.paid]\nkind = "http"\nurl = "{server.url}"\nprice_per_request = 0.25\n')
    workplace.make_ledger()
    with workplace.start(
        "endpoints", "bench", "paid", "--for", "1h", env={"ORCHESTRATOR_CONFIG": str(config)}
    ) as running:
        until(lambda: workplace.query("SELECT 1 FROM charge") != [])
        running.kill()
    ((job, requests, dollars),) = workplace.query("SELECT job, requests, dollars FROM charge")
    assert (job, dollars) == ("(bench)", requests / 4)
    assert 0 < requests <= server.stats().requests


def test_tokens_are_counted_if_the_server_reports_them(workplace: Workplace, server: InferenceServer) -> None:
    config = workplace.folder / "config.toml"
    wire = '{kind = "openai-chat", model = "small"}'
    config.write_text(f'[endpoints.chat]\nkind = "http"\nurl = "{server.url}"\nwire = {wire}\n')
    env = {"ORCHESTRATOR_CONFIG": str(config)}
    ended = workplace.run("endpoints", "bench", "chat", "--for", "1s", "--json", env=env)
    assert ended.code == 0, ended.err
    figures = ended.json["figures"]
    assert figures["tokens_in_per_second"] == pytest.approx(figures["tokens_out_per_second"])
    assert figures["tokens_in_per_second"] > figures["requests_per_second"]


def test_a_server_on_this_machine_is_started_with_its_replicas_and_ended(workplace: Workplace) -> None:
    config = workplace.folder / "config.toml"
    config.write_text(
        f"[endpoints.mine]\nkind = 'local_server'\nreplicas = 2\nhealth = '/health'\ncommand = {[*PROGRAM]!r}\n"
    )
    arguments = ("mine", "--concurrency", "4", "--for", "1s", "--json")
    ended = workplace.run("endpoints", "bench", *arguments, env={"ORCHESTRATOR_CONFIG": str(config)})
    assert ended.code == 0, ended.err
    assert ended.json["figures"]["statuses"] == {"200": ended.json["figures"]["answered"]}
    assert ended.json["figures"]["most_in_flight"] == 4
    assert ended.json["cost"] is None


def test_the_figures_are_printed_as_a_table(workplace: Workplace, server: InferenceServer) -> None:
    ended = bench(workplace, server.url, "--rate", "30", "--arrivals", "uniform", "--for", "1s")
    assert ended.out.startswith(f"endpoint {server.url}: open loop, 30 arrivals a second (uniform), for 1.0 s\n")
    for name in ("arrivals", "latency from arrival", "latency from sending", "throughput", "in flight", "client"):
        assert f"\n{name} " in ended.out
    assert "30 planned" in ended.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--rate", "5", "--sweep"), "give one of --rate, --concurrency and --sweep"),
        (("--for", "soon"), "--for 'soon' is not a duration such as 90s, 12h, 30d or 8w"),
        (("--slo", "fast"), "--slo 'fast' is not an objective such as p95=2s or p99=300ms"),
        (("--remember",), "--remember needs --sweep, which finds the best number of requests in flight"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    workplace: Workplace, server: InferenceServer, arguments: tuple[str, ...], says: str
) -> None:
    assert bench(workplace, server.url, *arguments, code=2).line == f"orchestrator: {says}"
    assert server.stats().requests == 0


def test_a_file_that_is_no_page_is_not_replaced(workplace: Workplace, server: InferenceServer) -> None:
    notes = workplace.folder / "notes.html"
    notes.write_text("mine")
    ended = bench(workplace, server.url, "--for", "1s", "-o", notes, code=2)
    assert "already exists and is not a report of orchestrator" in ended.line
    assert (notes.read_text(), server.stats().requests) == ("mine", 0)


def test_a_rollout_has_no_requests_to_send_and_is_refused(workplace: Workplace, server: InferenceServer) -> None:
    job = workplace.folder / "rollout.py"
    job.write_text(f"""
from orchestrator import Job
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sources import JsonlSource

async def rollout(row, ask):
    return await ask(row["text"])

job = Job("talk", JsonlSource({str(workplace.rows)!r}), HttpEndpoint({server.url!r}), rollout=rollout)
""")
    ended = bench(workplace, server.url, "--items", job, code=2)
    assert ended.line.endswith("job 'talk' has a rollout, whose requests are known only while it runs")


def test_a_job_without_usable_rows_sends_nothing(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows([])
    ended = bench(workplace, server.url, "--items", workplace.job(), code=2)
    assert ended.line == "orchestrator: no request can be made from the rows of job 'talk': it has no rows"
    assert server.stats().requests == 0
