from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson
import pytest

from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.item import File
from orchestrator.wires.huggingface import HuggingFaceWire

if TYPE_CHECKING:
    from pathlib import Path

PLAIN, WITH, LISTS = HuggingFaceWire(), HuggingFaceWire({"top_k": 2}), HuggingFaceWire(lists=True)


@pytest.mark.parametrize(
    ("wire", "requests", "body"),
    [
        (PLAIN, ["hi"], {"inputs": "hi"}),
        (PLAIN, [{"a": 1}], {"inputs": {"a": 1}}),
        (PLAIN, [{"inputs": "hi", "date": "now"}], {"inputs": "hi", "date": "now"}),
        (WITH, ["hi"], {"inputs": "hi", "parameters": {"top_k": 2}}),
        (WITH, [{"inputs": "hi", "parameters": {"x": 1}}], {"inputs": "hi", "parameters": {"top_k": 2, "x": 1}}),
        (LISTS, ["hi"], {"inputs": ["hi"]}),
        (LISTS, ["a", {"b": 2}], {"inputs": ["a", {"b": 2}]}),
        (LISTS, [{"inputs": "a", "parameters": {"k": 1}}], {"inputs": ["a"], "parameters": {"k": 1}}),
    ],
)
async def test_requests_are_packed(wire: HuggingFaceWire, requests: list[object], body: object) -> None:
    packed = await wire.pack([orjson.dumps(request) for request in requests])
    assert orjson.loads(packed.content) == body
    assert packed.content_type == "application/json"


async def test_inputs_with_different_parameters_do_not_share_a_request() -> None:
    requests = [orjson.dumps({"inputs": "a", "parameters": {"k": k}}) for k in (1, 2)]
    with pytest.raises(RequestFailed, match="different parameters") as raised:
        await LISTS.pack(requests)
    assert raised.value.kind is FailureKind.REJECTED


async def test_a_file_is_sent_as_its_bytes_and_must_not_have_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"png")
    file = File(str(path), hashlib.sha256(b"png").hexdigest(), "image/png")
    packed = await PLAIN.pack([orjson.dumps(file.as_json())])
    assert (packed.content, packed.content_type) == (b"png", "image/png")
    path.write_bytes(b"other")
    with pytest.raises(RequestFailed, match="has changed"):
        await PLAIN.pack([orjson.dumps(file.as_json())])


def test_answers_are_unpacked_one_per_input() -> None:
    assert PLAIN.unpack(b'[{"label": "A"}]', 1) == [[{"label": "A"}]]
    assert LISTS.unpack(b"[[1.0], [2.0]]", 2) == [[1.0], [2.0]]


@pytest.mark.parametrize("content", [b"", b"<html>", b"[NaN]", b'{"error": "in band"}', b"[1]", b"{}", b'"two"'])
def test_invalid_answers_are_never_stored(content: bytes) -> None:
    with pytest.raises(RequestFailed) as raised:
        LISTS.unpack(content, 2)
    assert raised.value.kind in {FailureKind.GARBLED, FailureKind.BAD_ANSWER}
