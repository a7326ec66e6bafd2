"""An item is its id and everything that shapes its answer: exactly what changed is asked, and `plan` says so before."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.job_file import load_job
from tests.commands import rows
from tests.servers import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace
    from tests.servers import InferenceServer

pytestmark = pytest.mark.unmeasured  # what is asked is decided in the engine and the store, whose own tests measure it
ITEMS = 40
NOTHING = {"new": 0, "edited": 0, "reused": 0, "retry": 0, "discarded": 0, "left_out": 0}


class Story:
    """A job that has been run once, and is planned and run again after each change."""

    def __init__(self, workplace: Workplace, server: InferenceServer) -> None:
        self.workplace = workplace
        self.server = server
        self.rows = rows(range(ITEMS))
        workplace.write_rows(self.rows)
        self.file = workplace.job()

    def begin(self) -> None:
        assert self.workplace.run("run", "--quiet", self.file).code == 0
        assert self.server.quiet().requests == ITEMS

    def goes_on(self, *options: str, asked: set[str], code: int = 0, **plan: int) -> dict[str, Any]:
        """Plan and run: check the plan, that exactly those inputs are asked, and the order of the output."""
        expected = NOTHING | plan
        total, to_ask = sum(expected.values()), expected["new"] + expected["edited"] + expected["retry"]
        planned = self.workplace.run("plan", "--json", *options, self.file)
        assert (planned.code, planned.err) == (0, "")
        plan_ = planned.json
        assert plan_.pop("estimate").keys() == {"seconds", "awake_seconds", "cost", "basis", "reason"}
        assert plan_ == {"job": "talk", "total": total, "to_ask": to_ask} | expected
        before = self.server.stats().by_input
        assert before == self.server.quiet().by_input  # planning sends no request
        ended = self.workplace.run("run", "--json", "--quiet", *options, self.file)
        assert ended.code == code, ended.err
        after = self.server.quiet().by_input
        new = {text for text, times in after.items() if times != before.get(text, 0)}
        assert new == asked
        assert sum(after.values()) - sum(before.values()) == len(asked) == to_ask
        assert ended.json["plan"] == expected
        found: dict[str, Any] = ended.json
        return found

    def delivered(self, wanted: list[dict[str, object]], prompt: str = "{text}") -> None:
        """Check that the output has these rows in this order, each with the answer to its own request."""
        assert self.workplace.outputs() == [
            row | {"output": {"said": answer_to(prompt.format_map(row)), "pad": ""}} for row in wanted
        ]


@pytest.fixture
def story(workplace: Workplace, server: InferenceServer) -> Story:
    story = Story(workplace, server)
    story.begin()
    return story


def test_the_first_plan_is_all_new(workplace: Workplace, server: InferenceServer) -> None:
    story = Story(workplace, server)
    planned = workplace.run("plan", story.file)
    assert planned.code == 0
    assert planned.out.splitlines() == [
        "40 new, 0 edited, 0 reused, 0 to retry",
        "estimate: none, no earlier run of the job has asked enough with this endpoint: try --canary",
    ]
    story.goes_on(new=ITEMS, asked={str(row["text"]) for row in story.rows})
    story.delivered(story.rows)


def test_nothing_changed_asks_nothing(story: Story) -> None:
    story.goes_on(reused=ITEMS, asked=set())
    story.delivered(story.rows)


def test_reordered_rows_are_delivered_in_the_new_order(story: Story) -> None:
    turned = story.rows[::-1]
    story.workplace.write_rows(turned)
    story.goes_on(reused=ITEMS, asked=set())
    story.delivered(turned)


def test_appended_rows_are_asked(story: Story) -> None:
    longer = story.rows + rows(range(ITEMS, ITEMS + 7))
    story.workplace.write_rows(longer)
    story.goes_on(reused=ITEMS, new=7, asked={str(row["text"]) for row in longer[ITEMS:]})
    story.delivered(longer)


def test_edited_rows_are_asked(story: Story) -> None:
    story.rows[5] = story.rows[5] | {"text": "fresh five"}
    story.rows[0] = story.rows[0] | {"text": "fresh zero"}
    story.workplace.write_rows(story.rows)
    story.goes_on(reused=ITEMS - 2, edited=2, asked={"fresh five", "fresh zero"})
    story.delivered(story.rows)


def test_a_reverted_edit_asks_nothing(story: Story) -> None:
    first = list(story.rows)
    story.rows[5] = story.rows[5] | {"text": "fresh"}
    story.workplace.write_rows(story.rows)
    story.goes_on(reused=ITEMS - 1, edited=1, asked={"fresh"})
    story.workplace.write_rows(first)
    story.goes_on(reused=ITEMS, asked=set())
    story.delivered(first)


def test_two_rows_that_swap_texts_count_as_edited(story: Story) -> None:
    one, two = story.rows[1], story.rows[2]
    story.rows[1], story.rows[2] = one | {"text": two["text"]}, two | {"text": one["text"]}
    story.workplace.write_rows(story.rows)
    story.goes_on(reused=ITEMS - 2, edited=2, asked={str(one["text"]), str(two["text"])})
    story.delivered(story.rows)


def test_deleted_rows_disappear_and_return_without_being_asked(story: Story) -> None:
    story.workplace.write_rows(story.rows[10:])
    story.goes_on(reused=ITEMS - 10, asked=set())
    story.delivered(story.rows[10:])
    story.workplace.write_rows(story.rows)
    story.goes_on(reused=ITEMS, asked=set())
    story.delivered(story.rows)


def test_changing_a_kept_column_asks_nothing(story: Story) -> None:
    story.rows = [row | {"note": "later"} for row in story.rows]
    story.workplace.write_rows(story.rows)
    story.file = story.workplace.job(sink="JsonlSink('out.jsonl', keep=['text', 'note'])")
    story.goes_on(reused=ITEMS, asked=set())
    story.delivered(story.rows)


def test_a_changed_prompt_asks_everything_again(story: Story) -> None:
    story.file = story.workplace.job(request="'say: {text}'")
    story.goes_on(edited=ITEMS, asked={f"say: {row['text']}" for row in story.rows})
    story.delivered(story.rows, "say: {text}")


@pytest.mark.parametrize(
    "endpoint", ["HttpEndpoint({url!r}, model='other')", "HttpEndpoint({url!r}, parameters={{'t': 1}})"]
)
def test_a_changed_model_or_parameter_asks_everything_again(story: Story, endpoint: str) -> None:
    story.file = story.workplace.job(endpoint=endpoint.format(url=story.server.url))
    story.goes_on(edited=ITEMS, asked={str(row["text"]) for row in story.rows})
    story.file = story.workplace.job()
    story.goes_on(reused=ITEMS, asked=set())  # the answers of the first model are still stored
    story.delivered(story.rows)


def test_a_changed_policy_or_header_asks_nothing(story: Story) -> None:
    story.file = story.workplace.job(
        endpoint=f"HttpEndpoint({story.server.url!r}, headers={{'X-Any': 'thing'}})", policy="concurrency=3"
    )
    story.goes_on("--set", "policy.max_attempts=2", reused=ITEMS, asked=set())


def test_a_limited_run_is_completed_by_a_full_one(workplace: Workplace, server: InferenceServer) -> None:
    story = Story(workplace, server)
    texts = [str(row["text"]) for row in story.rows]
    story.goes_on("--limit", "10", new=10, asked=set(texts[:10]))
    story.delivered(story.rows[:10])
    story.goes_on(new=ITEMS - 10, reused=10, asked=set(texts[10:]))
    story.delivered(story.rows)
    story.goes_on("--limit", "5", reused=5, asked=set())
    story.delivered(story.rows)  # a partial output does not replace the full one
    beside = workplace.folder / "out.first-5.jsonl"
    assert len(beside.read_bytes().splitlines()) == 5
    assert str(beside) in workplace.run("run", "--limit", "5", story.file).err


def test_rows_without_an_id_are_identified_by_their_content(workplace: Workplace, server: InferenceServer) -> None:
    texts = ["same", "same", "other"]
    workplace.write_rows([{"text": text} for text in texts])
    job = workplace.job(source="JsonlSource('rows.jsonl')", sink="JsonlSink('out.jsonl', keep=['text'])")
    assert workplace.run("run", "--quiet", job).code == 0
    assert [row["text"] for row in workplace.outputs()] == texts
    assert len({row["id"] for row in workplace.outputs()}) == 3
    workplace.write_rows([{"text": text} for text in ["new", *texts[::-1]]])
    asked = server.quiet().requests
    assert workplace.run("plan", job).out.splitlines()[0] == "1 new, 0 edited, 3 reused, 0 to retry"
    assert workplace.run("run", "--quiet", job).code == 0
    assert server.quiet().requests == asked + 1
    assert [row["output"]["said"] for row in workplace.outputs()] == ["wen", "rehto", "emas", "emas"]


def test_a_changed_parse_makes_new_outputs_from_old_answers(story: Story) -> None:
    story.file = story.workplace.job(prelude="def shout(answer):\n    return answer['said'].upper()", parse="shout")
    story.goes_on(reused=ITEMS, asked=set())
    assert [row["output"] for row in story.workplace.outputs()] == [
        answer_to(str(row["text"])).upper() for row in story.rows
    ]
    story.file = story.workplace.job()
    story.goes_on(reused=ITEMS, asked=set())
    story.delivered(story.rows)


def picky(workplace: Workplace, condition: str) -> Path:
    """Return a job whose parse refuses some answers."""
    prelude = (
        "def parse(answer):\n"
        f"    if {condition}:\n"
        "        raise ValueError('not to my taste')\n"
        "    return answer['said']"
    )
    return workplace.job(prelude=prelude, parse="parse")


def test_an_answer_that_parse_refuses_is_kept_for_a_better_parse(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = picky(workplace, "answer['said'].startswith('7')")
    assert workplace.run("run", "--quiet", job).code == 3
    refused = [f"i{number}" for number in range(7, ITEMS, 10)]
    assert [(row["id"], row["error"], row["attempts"]) for row in workplace.failures()] == [
        (name, {"kind": "parse", "status": None, "message": "not to my taste"}, 1) for name in refused
    ]
    assert len(workplace.outputs()) == ITEMS - len(refused)
    shown = workplace.run("item", "talk", "i7", "--json").json
    assert shown["answer"]["said"] == "7 fo txet"
    assert shown["output"] is None
    job = picky(workplace, "answer['said'].startswith('8')")
    assert workplace.run("run", "--quiet", job).code == 3
    assert [row["id"] for row in workplace.failures()] == [f"i{number}" for number in range(8, ITEMS, 10)]
    job = picky(workplace, "False")
    assert workplace.run("run", "--quiet", job).code == 0
    assert [row["output"] for row in workplace.outputs()] == [answer_to(str(row["text"])) for row in rows(range(ITEMS))]
    assert workplace.failures() == []
    assert server.quiet().requests == ITEMS


def test_fixing_a_bug_in_an_imported_module_parses_the_discarded_items_again(
    workplace: Workplace, server: InferenceServer
) -> None:
    """This holds for `parse` and for `request`; `plan` says so."""
    workplace.write_rows(rows(range(3)))
    helper = workplace.folder / "own_helper.py"
    bug = "    if row['text'].endswith('1'): raise KeyError('bug')\n"
    other = "    if answer['said'].startswith('2'): raise KeyError('bug')\n"
    made, parsed = "def made(row):\n{}    return row['text']\n", "def parsed(answer):\n{}    return answer['said']\n"
    helper.write_text(made.format(bug) + parsed.format(other))
    prelude = "import own_helper\ndef request(row):\n    return own_helper.made(row)\n"
    job = workplace.job(prelude=prelude, request="request", parse="lambda answer: own_helper.parsed(answer)")
    assert workplace.run("run", "--quiet", job).code == 3
    assert [row["id"] for row in workplace.failures()] == ["i1", "i2"]
    helper.write_text(made.format("") + parsed.format("") + "# mended\n")
    planned = workplace.run("plan", job).out.splitlines()
    assert planned[:-1] == [
        "0 new, 1 edited, 1 reused, 0 to retry, 1 discarded earlier",
        "parse has changed: existing answers, including discarded ones, are parsed again",
    ]
    assert workplace.run("run", "--quiet", job).code == 0
    assert len(workplace.outputs()) == server.quiet().requests == 3


def test_a_job_file_is_executed_in_its_current_version(workplace: Workplace) -> None:
    """Even if it changed within a second and kept its length: Python's own cache would not notice."""
    found = []
    for name in ("'one'", "'two'"):
        file = workplace.job(name=name)
        os.utime(file, (1e9, 1e9))
        found.append(load_job(file).name)
    assert found == ["one", "two"]
    assert not (workplace.folder / "__pycache__").exists()


@pytest.mark.parametrize("raised", ["KeyError('x')", "RuntimeError('odd')", "TypeError()"])
def test_a_failing_parse_discards_only_that_item(workplace: Workplace, raised: str) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    prelude = f"def parse(answer):\n    if answer['said'].startswith('7 '):\n        raise {raised}\n    return 1"
    job = workplace.job(prelude=prelude, parse="parse")
    assert workplace.run("run", "--quiet", job).code == 3
    (failure,) = workplace.failures()
    assert failure["id"] == "i7"
    assert failure["error"]["message"].startswith(raised.partition("(")[0])


def test_a_parse_may_be_given_more_attempts(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(3)))
    prelude = "def parse(answer):\n    raise ValueError('never')"
    job = workplace.job(
        prelude=prelude, parse="parse", policy="parse_attempts=3, backoff=Backoff(first=0.01), concurrency=1"
    )
    assert workplace.run("run", "--quiet", job).code == 3
    assert server.quiet().by_input == {f"text of {number}": 3 for number in range(3)}
    assert [row["attempts"] for row in workplace.failures()] == [3, 3, 3]


def test_a_key_in_a_url_is_stored_nowhere_and_does_not_affect_identity(
    workplace: Workplace, server: InferenceServer
) -> None:
    def ran(query: str) -> dict[str, int]:
        file = workplace.job(endpoint=f"HttpEndpoint('{server.url}?{query}')")
        ended = workplace.run("run", "--json", file)
        shown = [
            ended,
            *(workplace.run(*words.split()) for words in ("status", "report", "report 1 --json", "item 1 2")),
        ]
        assert not any("s3cret" in one.out + one.err for one in shown)
        plan: dict[str, int] = ended.json["plan"]
        return plan

    workplace.write_rows([{"id": "1", "text": "a"}, {"id": "2", "text": "poison"}])
    assert ran("key=s3cret-1&version=1")["new"] == 2
    assert ran("key=s3cret-2&version=1")["reused"] == 1
    assert ran("key=s3cret-2&version=2")["edited"] == 2
    ended = workplace.run("run", workplace.job(), "--set", f"endpoint.url={server.url}?key=s3cret-3")
    assert (ended.code, "s3cret" in ended.err) == (2, False)
    written = [path for path in workplace.folder.iterdir() if path.suffix != ".py" and path.is_file()]
    assert written
    assert not any(b"s3cret" in path.read_bytes() for path in written)


def test_a_renamed_job_reuses_the_answers_of_its_old_name(story: Story) -> None:
    place = story.workplace
    renamed = place.job("renamed.py", name="'chat'", sink=f"JsonlSink({str(place.folder / 'new.jsonl')!r})")
    planned = place.run("plan", renamed)
    assert planned.out.splitlines()[0] == (
        "40 new, 0 edited, 0 reused, 0 to retry; 40 of them were answered by job talk: `--reuse talk`"
    )
    planned = place.run("plan", "--json", renamed).json
    assert planned["answered_by"] == {"talk": ITEMS}
    assert planned["hints"] == [f"{ITEMS} of them were answered by job talk: `--reuse talk`"]
    assert place.run("plan", "--reuse", "talk", renamed).out == "0 new, 0 edited, 40 reused, 0 to retry\n"
    assert place.run("run", "--quiet", "--reuse", "talk", renamed).code == 0
    assert story.server.quiet().requests == ITEMS
    assert len((place.folder / "new.jsonl").read_bytes().splitlines()) == ITEMS
    refused = place.run("submit", "--reuse", "nobody", renamed)
    assert (refused.code, "job 'nobody' is not in the ledger" in refused.line) == (2, True)
    assert place.run("submit", "--reuse", "talk", renamed).code == 0
    assert place.query("SELECT spec ->> '$.reuse[0]' FROM run ORDER BY id DESC LIMIT 1") == [("talk",)]


def test_a_run_of_a_renamed_job_names_the_answers_that_it_could_reuse(story: Story) -> None:
    place = story.workplace
    renamed = place.job("renamed.py", name="'chat'", sink=f"JsonlSink({str(place.folder / 'new.jsonl')!r})")
    hint = "40 of them were answered by job talk: `--reuse talk`"
    first = place.run("run", renamed, "--json")
    assert f"plan: 40 new, 0 edited, 0 reused, 0 to retry; {hint}" in first.err
    assert first.json["hints"] == [hint]
    assert "answered by job" not in place.run("run", renamed).err  # it now has answers of its own


def test_a_renamed_job_with_its_old_output_gets_one_message_with_the_remedy(story: Story) -> None:
    renamed = story.workplace.job("renamed.py", name="'chat'")
    refused = story.workplace.run("run", renamed)
    assert refused.code == 2
    (options,) = re.findall(r"`(--reuse talk --overwrite)` keeps its answers and replaces its output", refused.err)
    assert story.workplace.run("run", "--quiet", *options.split(), renamed).code == 0
    assert story.server.quiet().requests == ITEMS
