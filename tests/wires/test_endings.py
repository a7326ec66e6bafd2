"""How texts end in each wire: complete, truncated (and counted), truncated before any text, or filtered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from orchestrator.domain.answer import Answer, Note
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires import HuggingFaceWire, OpenAIChatWire, OpenAICompletionsWire, OpenAIResponsesWire, TgiWire

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.wires.wire import Wire

Said = dict[str, Any]
_REASONS = {"length": "max_output_tokens"}


def chat(text: str | None, how: str | None, **more: object) -> Said:
    return {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": how, **more}]}


def completion(text: str | None, how: str | None, **more: object) -> Said:
    return {"choices": [{"index": 0, "text": text, "finish_reason": how, **more}]}


def response(text: str | None, how: str | None, **more: object) -> Said:
    output = [] if text is None else [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    if how == "stop":
        return {"status": "completed", "output": output, **more}
    return {"status": "incomplete", "incomplete_details": {"reason": _REASONS.get(str(how), how)}, "output": output}


def generated(text: str | None, how: str | None, **more: object) -> Said:
    return {"generated_text": text, "details": {"finish_reason": how}, **more}


WIRES = [
    pytest.param(OpenAIChatWire("m"), chat, id="chat"),
    pytest.param(OpenAICompletionsWire("m"), completion, id="completions"),
    pytest.param(OpenAIResponsesWire("m"), response, id="responses"),
    pytest.param(TgiWire(), generated, id="tgi"),
    pytest.param(HuggingFaceWire(), generated, id="huggingface"),
]
every_wire = pytest.mark.parametrize(("wire", "said"), WIRES)


def outcome(wire: Wire, said: Said) -> object:
    """Return the content of a body, or its failure."""
    try:
        (answer,) = wire.unpack(orjson.dumps(said), 1)
    except RequestFailed as failure:
        return failure
    return answer


@every_wire
def test_truncated_text_is_stored_and_noted(wire: Wire, said: Callable[..., Said]) -> None:
    answer = outcome(wire, said("half an", "length"))
    assert isinstance(answer, Answer)
    assert answer.notes == {Note.CUT}
    assert answer.value in ("half an", said("half an", "length"))


@every_wire
@pytest.mark.parametrize("text", ["", "  \n"])
def test_output_truncated_before_any_text_fails_for_good_and_names_the_limit(
    wire: Wire, said: Callable[..., Said], text: str
) -> None:
    failure = outcome(wire, said(text, "length"))
    assert isinstance(failure, RequestFailed)
    assert failure.kind is FailureKind.REJECTED
    assert "raise max_" in failure.message


@pytest.mark.parametrize(("wire", "said"), WIRES[:3])
def test_an_answer_without_any_text_fails_the_same_way(wire: Wire, said: Callable[..., Said]) -> None:
    failure = outcome(wire, said(None, "length"))
    assert isinstance(failure, RequestFailed)
    assert (failure.kind, "raise max_" in failure.message) == (FailureKind.REJECTED, True)


@every_wire
@pytest.mark.parametrize("how", ["error", "cancelled", "abort", "insufficient_system_resource", "network_error"])
def test_an_answer_without_an_end_is_asked_again(wire: Wire, said: Callable[..., Said], how: str) -> None:
    failure = outcome(wire, said("half an", how))
    assert isinstance(failure, RequestFailed)
    assert failure.kind is FailureKind.GARBLED
    assert how in failure.message


@pytest.mark.parametrize("how", [7, ["stop"], {"stop": 1}, True])
def test_an_end_that_is_not_a_string_is_ignored(how: object) -> None:
    failure = outcome(OpenAIChatWire("m"), chat("half an", how))  # type: ignore[arg-type]  # that is the test
    assert isinstance(failure, RequestFailed)
    assert failure.kind is FailureKind.GARBLED


@pytest.mark.parametrize("how", ["stop", "STOP", "eos_token", "end_turn", "tool_calls", "COMPLETE", "", None])
def test_complete_text_is_an_answer(how: str | None) -> None:
    assert outcome(OpenAIChatWire("m"), chat("all of it", how)) == "all of it"


@pytest.mark.parametrize("how", ["content_filter", "SAFETY", "refusal"])
def test_a_filtered_answer_is_not_asked_again(how: str) -> None:
    failure = outcome(OpenAICompletionsWire("m"), completion("half an", how))
    assert isinstance(failure, RequestFailed)
    assert failure.kind is FailureKind.REJECTED


@pytest.mark.parametrize(("wire", "said"), WIRES[:2])
def test_an_error_in_a_choice_is_not_an_answer_whatever_its_finish_reason(
    wire: Wire, said: Callable[..., Said]
) -> None:
    failure = outcome(wire, said("half an", "stop", error={"code": 502, "message": "Upstream provider error"}))
    assert isinstance(failure, RequestFailed)
    assert failure.kind is FailureKind.GARBLED
    assert "Upstream provider error" in failure.message


def test_an_error_in_the_message_is_not_an_answer() -> None:
    said = chat("half an", "stop")
    said["choices"][0]["message"]["error"] = {"code": 502, "message": "Upstream provider error"}
    failure = outcome(OpenAIChatWire("m"), said)
    assert isinstance(failure, RequestFailed)
    assert (failure.kind, "Upstream provider error" in failure.message) == (FailureKind.GARBLED, True)


def test_only_the_entry_without_an_end_fails_in_a_batch() -> None:
    choices = [
        {"index": place, "text": "a", "finish_reason": how} for place, how in enumerate(["stop", "error", "length"])
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 6}
    whole, failed, cut = OpenAICompletionsWire("m").unpack(orjson.dumps({"choices": choices, "usage": usage}), 3)
    assert whole == Answer("a", 1, 2)
    assert isinstance(failed, RequestFailed)
    assert cut == Answer("a", 1, 2, frozenset({Note.CUT}))
