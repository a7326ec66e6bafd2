"""What a job file may say about the jobs that its job waits for, and about rollouts and their endpoints."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import orchestrator
from orchestrator import Job, Policy, Weighted, ports
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.sources import CsvSource, IterableSource, JsonlSource
from orchestrator.user_file import execute
from orchestrator.wires import OpenAIChatWire
from tests.engine.scripted import Scripted, job_of
from tests.snapshots import items_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from orchestrator import Ask


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(["a"], Scripted(), tmp_path)


def test_a_job_waits_for_one_or_several_jobs_and_for_success_or_any_end(job: Job) -> None:
    assert job.waits_for == ()
    assert replace(job, after="prepare").waits_for == (("prepare", False),)
    both = replace(job, after=("prepare", "clean.up"), after_end=["tidy"])
    assert both.waits_for == (("prepare", False), ("clean.up", False), ("tidy", True))


def test_dependencies_of_a_job_do_not_affect_the_identity_of_its_answers(job: Job) -> None:
    waiting = replace(job, after="prepare", after_end="tidy")
    assert waiting.fingerprint(waiting.identity(), 5) == job.fingerprint(job.identity(), 5)


def test_reordering_the_keys_of_a_template_starts_a_new_run(job: Job) -> None:
    def fingerprint(template: object) -> str:
        return replace(job, request=template).fingerprint({"model": "m"}, None)

    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"b": 2, "a": 1})
    before = json.dumps([job.name, {"model": "m"}, {"a": 1, "b": 2}, "", job.kept, None], sort_keys=True)
    assert fingerprint({"a": 1, "b": 2}) == hashlib.sha256(before.encode()).hexdigest()  # as in older ledgers


@dataclass(frozen=True)
class OwnSource(JsonlSource):
    """One defined in a job file."""

    label: object = None

    def describe(self) -> str:
        return "one line"


def test_what_shapes_the_rows_besides_their_input_is_the_kind_the_settings_and_the_code_of_the_source(job: Job) -> None:
    def reads_as(source: ports.Source) -> str:
        return replace(job, source=source).reads_as()

    plain = reads_as(CsvSource("a.csv", id="id"))
    assert plain == reads_as(CsvSource("moved/b.csv", id="id", encoding="utf-8"))
    others = [
        CsvSource("a.csv"),
        CsvSource("a.csv", id="id", encoding="cp1252"),
        CsvSource("a.csv", id="id", delimiter=";"),
        CsvSource("a.csv", id="id", escape="\\"),
        JsonlSource("a.csv", id="id"),
        OwnSource("a.csv", id="id"),
        OwnSource("a.csv", id="id", label=job),
    ]
    assert len({plain, *map(reads_as, others)}) == len(others) + 1
    assert reads_as(OwnSource("b", label=object())) == reads_as(OwnSource("b", label=object()))  # no address in memory


def test_editing_the_code_of_a_source_changes_how_it_reads(job: Job, tmp_path: Path) -> None:
    def reads_as(name: str, text: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(
            "from orchestrator.sources import JsonlSource\nclass Mine(JsonlSource):\n"
            f"    def describe(self):\n        return {text!r}\n"
        )
        return replace(job, source=execute(path, name).Mine("in.jsonl")).reads_as()

    assert reads_as("a", "one") == reads_as("b", "one") != reads_as("c", "two")


@pytest.mark.parametrize("wrong", [7, ["prepare", 7], "7", "", "two words", None, {"prepare"}])
@pytest.mark.parametrize("field", ["after", "after_end"])
def test_an_invalid_job_name_is_refused(job: Job, field: str, wrong: object) -> None:
    with pytest.raises(TypeError, match=rf"^{field}=.* is neither a job's name nor a list of names"):
        replace(job, **{field: wrong})  # type: ignore[arg-type]  # that is the test


def test_a_job_does_not_wait_for_itself(job: Job) -> None:
    with pytest.raises(ValueError, match="'scripted' cannot wait for itself"):
        replace(job, after_end=("prepare", "scripted"))


async def rollout(row: Mapping[str, Any], ask: Ask) -> object:
    return await ask(row["text"])


async def other_rollout(row: Mapping[str, Any], ask: Ask) -> object:
    return await ask(row["text"], to="judge")


class Rolls:
    async def __call__(self, row: Mapping[str, Any], ask: Ask) -> object:
        return await ask(row["text"])


def with_rollout(endpoint: Any, function: Any = rollout, **more: Any) -> Job:
    return Job("rolls", IterableSource([{"text": "a"}, {"text": "a"}]), endpoint, rollout=function, **more)


def test_a_rollout_has_named_endpoints_of_which_the_first_of_each_name_is_its_identity() -> None:
    writer, judge, second = Scripted(model="large"), Scripted(name="judge", model="small"), Scripted(name="second")
    job = with_rollout({"writer": writer, "the-judge": [judge, Weighted(second, 2)]})
    assert [(route.name, [one.endpoint for one in route.endpoints]) for route in job.routes] == [
        ("writer", [writer]),
        ("the-judge", [judge, second]),
    ]
    assert job.routes[1].endpoints[1].weight == 2
    assert [one.endpoint for one in job.endpoints] == [writer, judge, second]
    assert job.endpoint_names == {"scripted", "judge", "second"}
    policy = job.policy
    assert job.identity()["routes"] == {"writer": writer.identity(policy), "the-judge": judge.identity(policy)}
    alone = with_rollout([judge, second])
    assert [len(route.endpoints) for route in alone.routes] == [2]
    assert alone.identity()["routes"] == {"endpoint": judge.identity(policy)}


def test_an_edited_rollout_is_another_identity_and_takes_over_no_row() -> None:
    one, other = with_rollout(Scripted()), with_rollout(Scripted(), other_rollout)
    assert one.identity() != other.identity()
    hashes = [{item.hash for item in items_in(Snapshot(job, job.identity(), None))} for job in (one, other)]
    assert not set.intersection(*hashes)


def test_the_request_of_a_rollouts_item_is_its_row_and_rows_do_not_share_answers() -> None:
    rows = [{"text": "a", "id": "1", "n": 2}, {"text": "a", "id": "1", "n": 2}, {"text": "b", "n": Decimal(1)}]
    job = replace(with_rollout(Scripted()), source=IterableSource(rows))
    items = list(items_in(Snapshot(job, job.identity(), None)))
    assert [item.request for item in items[:2]] == ['{"text":"a","id":"1","n":2}'] * 2
    assert [item.shares for item in items] == [None] * 3
    assert items[2].request is None
    assert str(items[2].unreadable).startswith("no request could be made: column 'n': TypeError: ")


@dataclass(frozen=True, slots=True)
class Debate:
    rounds: int
    key: str = "secret-key"

    async def __call__(self, row: object, ask: object) -> object:
        return [row, self.rounds]

    async def run(self, row: object, ask: object) -> object:
        return await self(row, ask)


class Plain:
    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    async def run(self, row: object, ask: object) -> object:
        return [row, self.rounds]


@pytest.mark.parametrize(
    "made",
    [
        Debate,
        lambda rounds: Debate(rounds).run,
        lambda rounds: Plain(rounds).run,
        lambda rounds: partial(Debate(rounds).run),
    ],
)
def test_attributes_of_a_callable_object_are_part_of_a_rollouts_identity(made: Callable[[int], Any]) -> None:
    three, again, five = (with_rollout(Scripted(), made(rounds)).identity() for rounds in (3, 3, 5))
    assert three == again
    assert three["rollout"] != five["rollout"]
    assert "secret-key" not in str(three)


@pytest.mark.parametrize("function", [rollout, Rolls(), partial(other_rollout)])
def test_a_rollout_is_any_async_callable_of_a_row_and_ask(function: Callable[..., Any]) -> None:
    assert with_rollout(Scripted(), function).rollout is function


async def _of_one(row: object) -> object:
    return row


def _plain(_row: object, _ask: object) -> object:
    return None


@pytest.mark.parametrize("function", [_of_one, _plain, "rollout", Rolls, 7])
def test_anything_else_is_refused_as_a_rollout(function: object) -> None:
    with pytest.raises(TypeError, match=r"is not an async function of two arguments, a row and `ask`$"):
        with_rollout(Scripted(), function)


def _of_two(_answer: object, _row: object) -> object:
    return None


def _generator(answer: object) -> Iterator[object]:
    yield answer


@pytest.mark.parametrize("function", [_of_one, _of_two, _generator, Rolls(), partial(_plain, 1, 2)])
def test_a_function_that_cannot_make_an_output_or_a_request_is_refused(function: Callable[..., object]) -> None:
    for name, takes in (("parse", "an answer"), ("request", "a row")):
        with pytest.raises(TypeError, match=f"^{name} must be a function of {takes} that .*; not async, no generator$"):
            Job("talk", IterableSource([]), Scripted(), **{name: function})  # type: ignore[arg-type]  # parse and request have different types


def test_a_function_may_be_any_callable_of_one_argument() -> None:
    for function in (str, len, json.loads, partial(_of_two, 1), lambda *given: given):
        assert Job("talk", IterableSource([]), Scripted(), parse=function, request=function).parse is function


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"request": {"inputs": "{text}"}}, "request"),
        ({"parse": str}, "parse"),
        ({"fallback": Scripted(name="other"), "policy": Policy(fallback_below=3)}, "fallback"),
        ({"parse": str, "request": str, "policy": Policy(parse_attempts=2)}, "parse, request, policy.parse_attempts"),
    ],
)
def test_what_a_rollout_replaces_is_refused_beside_it(more: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^a job with a rollout has no use for {named}: "):
        with_rollout(Scripted(), **more)


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ({}, "a job needs an endpoint"),
        ({"writer": []}, "endpoint= has no endpoint for 'writer'"),
        ({"the judge": Scripted()}, "must begin with a letter .*: 'the judge'"),
        ({"7": Scripted()}, "must begin with a letter .*: '7'"),
        ({7: Scripted()}, "must begin with a letter .*: 7"),
        (
            {"a": Scripted(), "b": Scripted()},
            "need different names, not scripted, scripted; name a server once, and put what differs into the req",
        ),
    ],
)
def test_names_of_endpoints_that_cannot_be_are_refused(endpoint: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_rollout(endpoint)


def test_named_endpoints_and_a_time_limit_for_items_need_a_rollout(job: Job) -> None:
    with pytest.raises(ValueError, match="names endpoints for a rollout: give rollout=, or a list"):
        replace(job, endpoint={"writer": Scripted()})
    with pytest.raises(ValueError, match=r"policy.item_timeout needs a rollout="):
        replace(job, policy=Policy(item_timeout=5))
    with pytest.raises(ValueError, match=r"policy.max_asks needs a rollout="):
        replace(job, policy=Policy(max_asks=5))


def test_what_a_rollout_is_given_can_still_be_imported_from_the_ports() -> None:
    assert ports.Ask is orchestrator.Ask
    assert ports.Conversation is orchestrator.Conversation


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("-inf")], {"deep": float("inf")}])
def test_a_parameter_that_json_lacks_is_refused_by_name(job: Job, value: object) -> None:
    wire = OpenAIChatWire("m", parameters={"logit_bias": value})
    asking = replace(job, endpoint=HttpEndpoint("http://127.0.0.1:1/", wire=wire))
    with pytest.raises(UsageError, match="which JSON lacks"):
        asking.identity()
