"""Batch files of OpenAI and of other services, as a source and as a sink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.sinks import BatchFileSink
from orchestrator.sinks.batch_file import BatchFileWriter
from orchestrator.sources import BatchFileSource
from orchestrator.testing import FileSourceConformance, SinkConformance
from orchestrator.testing.assertions import assert_one_line
from orchestrator.testing.sinks import answers, deliver
from orchestrator.testing.sources import read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from orchestrator import ports
    from orchestrator.domain.item import Row
    from orchestrator.sinks.output_file import OutputFile

CHAT = "/v1/chat/completions"
FAILED = {"id": "z", "error": {"kind": "rejected", "status": 400, "message": "no"}, "attempts": 2}


def request(custom_id: str, text: str, **more: object) -> dict[str, object]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **more}


def chat(text: object) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    return {"id": "c", "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().split(b"\n") if line]


class TestBatchFileSource(FileSourceConformance):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        written = (orjson.dumps(request(str(number), text)) for number, text in enumerate(texts))
        (folder / "in.jsonl").write_bytes(b"\n".join(written))
        return BatchFileSource(folder / "in.jsonl")

    def text_of(self, row: Row) -> object:
        body: Any = row.columns["body"]
        return body["messages"][0]["content"]


class _Chats(BatchFileWriter):
    """Writes texts as chats."""

    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        super().write([{**record, "output": chat(record["output"])} for record in records])


@dataclass(frozen=True, slots=True, init=False)
class _ChatSink(BatchFileSink):
    def _writer(self, file: OutputFile, columns: Sequence[str]) -> BatchFileWriter:
        return _Chats(file, columns, self.dialect)


class TestBatchFileSink(SinkConformance):
    """Its outputs are bodies of responses, so the suite's texts are put into some. It keeps no columns."""

    def sink(self, path: Path, keep: Sequence[str]) -> ports.Sink:
        return _ChatSink(path)

    def read(self, path: Path) -> list[Mapping[str, object]]:
        return [{"id": line["custom_id"], "output": self._text(line)} for line in lines(path)]

    def _text(self, line: dict[str, Any]) -> object:
        return line["response"]["body"]["choices"][0]["message"]["content"]

    @pytest.mark.skip("it keeps no columns")
    def test_the_columns_are_id_kept_output_in_this_order(self, path: Path) -> None: ...

    def test_records_come_back_in_order_and_word_for_word(self, path: Path) -> None:
        records = answers("a\u2028b\x85", "\n\r\t", "\ufeff\0", "é😀", "")
        deliver(self.sink(path, ()), records[:3], records[3:])
        assert self.read(path) == records

    def test_placeholders_are_filled_in_for_a_run(self, path: Path) -> None:
        sink = BatchFileSink(path.with_name("{run}-" + path.name)).for_run({"run": "7", "date": "d", "job": "j"})
        assert sink.path == path.with_name("7-" + path.name)

    def test_failures_are_lines_of_json_and_gone_when_there_are_none_any_more(self, path: Path) -> None:
        deliver(self.sink(path, ()), answers("a"), failures=[FAILED])
        failures = path.with_name("out.failures.jsonl")
        (line,) = lines(failures)
        assert (line["custom_id"], line["response"]["status_code"], line["error"]) == ("z", 400, None)
        assert line["response"]["body"]["error"]["message"] == "no"
        deliver(self.sink(path, ()), answers("a"))
        assert not failures.exists()


def test_lines_of_several_services_and_bad_ones_are_rows_of_one_file(tmp_path: Path) -> None:
    anthropic = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "two"}]}
    written = [
        request("1", "one"),
        {"custom_id": "2", "params": anthropic},
        {"custom_id": "3", "params": {**anthropic, "thinking": {"type": "enabled", "budget_tokens": 1024}}},
        request("4", "four", url="/v1/embeddings"),
        {"body": {"messages": [{"role": "user", "content": "five"}]}},
        {"custom_id": 6, "body": {}},
        {"custom_id": "7"},
        {**request("8", "eight"), "custom_id": None},
    ]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(orjson.dumps(line) for line in written) + b"\n\nnonsense\n")
    rows = read(BatchFileSource(path, model="acme/m"))
    assert [(row.id, row.unreadable) for row in rows] == [
        ("1", None),
        ("2", None),
        ("3", 'request 3 has `thinking`, which the other format lacks: {"type": "enabled", "budget_tokens": 1024}'),
        ("4", "request 4 is for /v1/embeddings, and route is /v1/chat/completions"),
        (None, None),
        ("6", None),
        ("7", "request 7 has neither a request (body or params) nor a result (response or result)"),
        (None, None),
        (None, "line 10 is not valid JSON: invalid literal, expected 'null'"),
    ]
    bodies: list[Any] = [row.columns["body"] for row in rows if row.unreadable is None]
    assert {body["model"] for body in bodies} == {"acme/m"}


def test_what_a_service_returned_is_read_with_its_answers_and_errors(tmp_path: Path) -> None:
    deliver(BatchFileSink(tmp_path / "openai.jsonl"), [{"id": "a", "output": chat("yes")}], failures=[FAILED])
    deliver(
        BatchFileSink(tmp_path / "other.jsonl", "anthropic"), [{"id": "b", "output": chat("no")}], failures=[FAILED]
    )
    rows = read(BatchFileSource(tmp_path / "*.jsonl"))
    found: dict[str | None, Any] = {}
    for row in rows:
        found.setdefault(row.id, []).append(row.columns)
    assert [one["body"]["choices"][0]["message"]["content"] for one in found["a"] + found["b"]] == ["yes", "no"]
    assert [(one["status_code"], one["body"]) for one in found["z"]] == [(400, None), (None, None)]
    assert [one["error"] for one in found["z"]] == [
        {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": "rejected"}},
        {"type": "invalid_request_error", "message": "no"},
    ]


def test_anthropic_takes_our_results(tmp_path: Path) -> None:
    from anthropic.types.messages import MessageBatchIndividualResponse

    deliver(BatchFileSink(tmp_path / "out.jsonl", "anthropic"), [{"id": "a", "output": chat("x")}], failures=[FAILED])
    written = lines(tmp_path / "out.jsonl") + lines(tmp_path / "out.failures.jsonl")
    read_back = [MessageBatchIndividualResponse.model_validate(line) for line in written]
    assert [(one.custom_id, one.result.type) for one in read_back] == [("a", "succeeded"), ("z", "errored")]


@pytest.mark.parametrize(
    ("dialect", "output", "why"),
    [
        ("openai", "a text", "item a: the output is not the body of a response"),
        ("anthropic", [1.0], "item a: the output is not the body of a response"),
        ("anthropic", {"data": []}, "item a has an answer that is not a chat completion"),
    ],
)
def test_an_output_that_is_no_body_is_refused_in_one_line(
    tmp_path: Path, dialect: Any, output: object, why: str
) -> None:
    with pytest.raises(UsageError) as failure:
        deliver(BatchFileSink(tmp_path / "out.jsonl", dialect), [{"id": "a", "output": output}])
    assert_one_line(failure, why, "answers are kept")
    assert not list(tmp_path.iterdir())


def test_a_wrong_route_and_a_wrong_dialect_are_refused() -> None:
    with pytest.raises(ValueError, match=r"route must be one of /v1/chat/completions, .*, not 'chat'"):
        BatchFileSource("in.jsonl", "chat")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dialect must be one of openai, anthropic, not 'azure'"):
        BatchFileSink("out.jsonl", "azure")  # type: ignore[arg-type]
