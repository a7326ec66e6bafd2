"""The wire of recordings: a strict server reads the form and answers with a text."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import BodyPartReader, web
from anyio import to_thread

from orchestrator.domain.answer import Answer
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.item import File
from orchestrator.endpoints import HttpEndpoint
from orchestrator.testing import WireConformance
from orchestrator.wires import OpenAITranscriptionsWire
from tests.wires.test_conformance import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.wires.wire import Body
    from tests.commands import Workplace

CONTENT = Path(__file__).read_bytes()
THIS = File(__file__, hashlib.sha256(CONTENT).hexdigest(), "audio/wav").as_json()
SOUND = b"RIFF\r\n--\r\n\x00\xff sounds"


def recording(folder: Path, name: str = 'Où est\n "il".WAV') -> Mapping[str, str]:
    path = folder / name
    path.write_bytes(SOUND)
    return File(str(path), hashlib.sha256(SOUND).hexdigest(), "audio/wav").as_json()


class TestConformance(WireConformance):
    """The conformance suite, with this file as the recording."""

    requests = (THIS, {"file": THIS})
    answers = ("Try again.", "Try again.")
    refused = ("a text", {"language": "fr"})

    def wire(self) -> OpenAITranscriptionsWire:
        return OpenAITranscriptionsWire("whisper")

    def respond(self, body: Body) -> bytes:
        assert CONTENT in body.content
        return b'{"text": "Try again."}'


@asynccontextmanager
async def server(seen: list[Any]) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        fields: list[tuple[str | None, object]] = []
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            content = bytes(await part.read())
            known = (part.filename, part.headers["Content-Type"], content) if part.filename else content.decode()
            fields.append((part.name, known))
        seen.append(fields)
        usage = {"type": "tokens", "input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
        return web.json_response({"text": " Try again.", "segments": [], "usage": usage})

    app = web.Application()
    app.router.add_post("/v1/audio/transcriptions", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.usefixtures("each_http_client")
async def test_a_recording_is_sent_in_a_form_and_its_text_comes_back(tmp_path: Path) -> None:
    file, seen = recording(tmp_path), list[Any]()
    wire = OpenAITranscriptionsWire("whisper", {"language": "fr", "timestamp_granularities": ["word", "segment"]})
    async with server(seen) as url, opened(HttpEndpoint(url, wire=wire)) as data:
        for request in (file, {"file": file, "language": "dé", "temperature": 0.5, "hotwords": None}):
            assert await data.ask([orjson.dumps(request)]) == [Answer(" Try again.", 3, 5)]
    sent = ("file", ("file.wav", "audio/wav", SOUND))
    often = [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")]
    assert seen[0] == [("model", "whisper"), ("language", "fr"), *often, sent]
    assert seen[1] == [("model", "whisper"), ("language", "dé"), *often, ("temperature", "0.5"), sent]


async def test_with_times_the_whole_response_is_the_answer(tmp_path: Path) -> None:
    wire = OpenAITranscriptionsWire("whisper", {"response_format": "verbose_json"})
    async with server([]) as url, opened(HttpEndpoint(url, wire=wire)) as data:
        (answer,) = await data.ask([orjson.dumps(recording(tmp_path))])
    assert isinstance(answer, Answer)
    assert isinstance(answer.value, dict)
    assert (answer.value["text"], answer.value["segments"]) == (" Try again.", [])


@pytest.mark.parametrize("wanted", ["verbose_json", "diarized_json"])
def test_an_answer_without_the_times_that_were_asked_for_is_no_answer(wanted: str) -> None:
    wire = OpenAITranscriptionsWire("whisper", {"response_format": wanted})
    with pytest.raises(RequestFailed, match=f"ignores response_format, and has no {wanted}") as caught:
        wire.unpack(b'{"text": "words"}', 1)
    assert caught.value.kind is FailureKind.BAD_ANSWER


@pytest.mark.parametrize("request_", ["a text", None, 5, {"file": "sound.wav"}, {"language": "fr"}])
async def test_what_is_no_recording_is_not_sent(request_: object) -> None:
    with pytest.raises(RequestFailed, match="a transcription needs a file"):
        await OpenAITranscriptionsWire("m").pack([orjson.dumps(request_)])


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b'"words"', b'{"text": null}', b'{"txt": "a"}', b'{"error": "x"}']
)
def test_what_has_no_text_is_no_answer(content: bytes) -> None:
    with pytest.raises(RequestFailed):
        OpenAITranscriptionsWire("m").unpack(content, 1)


async def test_answers_that_are_not_json_are_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="answers have to be JSON"):
        OpenAITranscriptionsWire("m", {"response_format": "srt"})
    with pytest.raises(ValueError, match="stream"):
        OpenAITranscriptionsWire("m", {"stream": True})
    for more in ({"response_format": "vtt"}, {"stream": True}):
        with pytest.raises(RequestFailed, match="not sent"):
            await OpenAITranscriptionsWire("m").pack([orjson.dumps({"file": recording(tmp_path), **more})])


async def test_a_job_over_a_folder_of_recordings(workplace: Workplace) -> None:
    folder = workplace.folder / "sounds"
    folder.mkdir()
    for number in range(3):
        recording(folder, f"{number}.wav")
    async with server([]) as url:
        path = workplace.job(
            source=f"FilesSource({str(folder)!r})",
            endpoint=f"HttpEndpoint({url!r}, wire=OpenAITranscriptionsWire('whisper'))",
            prelude="from orchestrator.sources import FilesSource\nfrom orchestrator.wires import *",
            request="'{file}'",
            sink=f"JsonlSink({str(workplace.output)!r})",
        )
        ended = await to_thread.run_sync(workplace.run, "run", path)
    assert ended.code == 0, ended.err
    assert [record["output"] for record in workplace.outputs()] == [" Try again."] * 3
