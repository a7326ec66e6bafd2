from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from anyio import to_thread

from orchestrator.app.batch_validation import validated, validated_by_child
from orchestrator.domain.batch_lines import MOST_ERRORS, Validated
from orchestrator.domain.errors import OrchestratorError, UsageError
from orchestrator.engine.tasks import task_group
from tests.commands import until

if TYPE_CHECKING:
    from pathlib import Path

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def line(custom_id: object, **changed: object) -> str:
    url = "/v1/chat/completions"
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": BODY | changed})


def checked(path: Path, *lines: str | bytes) -> Validated:
    path.write_bytes(b"\n".join(one if isinstance(one, bytes) else one.encode() for one in lines))
    return validated(path, "/v1/chat/completions", ("m", "other"), 50_000)


def codes(found: Validated) -> list[tuple[str, int | None]]:
    return [(error.code, error.line) for error in found.errors]


def test_a_valid_file_has_its_lines_and_its_model(tmp_path: Path) -> None:
    lines = [line(f"é{number}") for number in range(1200)]
    assert checked(tmp_path / "a", *lines) == Validated(1200, "m", ())


def test_byte_order_mark_blank_lines_and_carriage_returns_do_no_harm(tmp_path: Path) -> None:
    assert checked(tmp_path / "a", "\ufeff" + line("a") + "\r", "", " \r", line("b"), "") == Validated(2, "m", ())


def test_every_bad_line_is_listed_in_order_with_its_number(tmp_path: Path) -> None:
    found = checked(
        tmp_path / "a",
        line("a"),
        "",
        "{not JSON",
        line("a"),
        b"\xff",
        line("b", model="other"),
        line("c", model="nobody's"),
        line("c", stream=True),
        line("d", seed=float("nan")),
        '"\\ud800"',
    )
    assert found.total == 9
    assert codes(found) == [
        ("invalid_json_line", 3),
        ("duplicate_custom_id", 4),
        ("invalid_json_line", 5),
        ("mismatched_model", 6),
        ("model_not_found", 7),
        ("streaming_unsupported", 8),  # also a duplicate; one error is enough
        ("invalid_json_line", 9),
        ("invalid_json_line", 10),
    ]
    assert "custom_id 'a'" in found.errors[1].message


def test_duplicates_are_found_however_far_apart(tmp_path: Path) -> None:
    found = checked(tmp_path / "a", *(line(f"{number}") for number in range(1100)), line("0"), line("1099"))
    assert codes(found) == [("duplicate_custom_id", 1101), ("duplicate_custom_id", 1102)]


def test_the_model_is_that_of_the_first_valid_line(tmp_path: Path) -> None:
    found = checked(tmp_path / "a", line("a", model="nobody's"), line("b", model="other"), line("c"))
    assert found.model == "other"
    assert codes(found) == [("model_not_found", 1), ("mismatched_model", 3)]


def test_of_very_many_bad_lines_the_first_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    found = checked(tmp_path / "a", *["{"] * (MOST_ERRORS + 501))
    assert len(found.errors) == MOST_ERRORS + 1
    assert codes(found)[-2:] == [("invalid_json_line", MOST_ERRORS), ("too_many_errors", None)]
    assert found.errors[-1].message == "The first 1,000 invalid lines are listed; 501 more are invalid."


def test_a_file_with_too_many_lines_is_not_asked_and_its_bad_lines_are_listed_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("\n".join([line("a"), "{", line("c")]))
    assert codes(validated(tmp_path / "a", "/v1/chat/completions", {"m"}, 3)) == [("invalid_json_line", 2)]
    found = validated(tmp_path / "a", "/v1/chat/completions", {"m"}, 2)
    assert codes(found) == [("invalid_json_line", 2), ("too_many_tasks", None)]
    assert found.errors[-1].message == "The input file contains 3 requests; a batch may have at most 2."


@pytest.mark.parametrize(
    ("given", "inputs"), [("one", 1), (["a", "b", "c"], 3), ([[1, 2], [3]], 2), ([1, 2, 3, 4], 1), (["a"], 1)]
)
def test_a_line_counts_for_its_inputs_where_embeddings_are_asked_for(
    tmp_path: Path, given: object, inputs: int
) -> None:
    body = {"model": "m", "input": given}
    request = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": body}
    (tmp_path / "a").write_text(json.dumps(request))
    assert not validated(tmp_path / "a", "/v1/embeddings", {"m"}, inputs).errors
    if inputs > 1:
        assert codes(validated(tmp_path / "a", "/v1/embeddings", {"m"}, inputs - 1)) == [("too_many_tasks", None)]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_an_error_of_the_file(tmp_path: Path, content: str) -> None:
    assert codes(checked(tmp_path / "a", content)) == [("empty_file", None)]


async def test_a_child_process_finds_the_same_as_this_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(line("a") + "\n" + line("é", model="n"))
    here = await to_thread.run_sync(validated, tmp_path / "a", "/v1/chat/completions", ["m"], 50_000)
    assert here.errors
    assert await validated_by_child(tmp_path / "a", "/v1/chat/completions", ["m"], 50_000) == here


async def test_a_killed_child_process_says_nothing_about_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(line("a"))

    def kill() -> None:
        until(lambda: any("batch_validation" in " ".join(child.cmdline()) for child in psutil.Process().children()))
        for child in psutil.Process().children():
            if "batch_validation" in " ".join(child.cmdline()):
                child.kill()

    async with task_group() as group:  # the child takes a while to begin
        group.start_soon(to_thread.run_sync, kill)
        with pytest.raises(OrchestratorError, match="killed by signal 9"):
            await validated_by_child(tmp_path / "a", "/v1/chat/completions", ["m"], 50_000)


async def test_a_child_process_reports_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    (error,) = (await validated_by_child(tmp_path / "gone", "/v1/chat/completions", ["m"], 50_000)).errors
    assert error.code == "invalid_request"
    assert "does not exist" in error.message


def test_a_file_that_is_gone_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        validated(tmp_path / "gone", "/v1/chat/completions", (), 50_000)
