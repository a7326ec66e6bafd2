"""The OpenAI transcriptions wire: a recording in a form, and the text that is spoken in it.

Source of the shapes: the types of the `openai` package; vLLM, `transformers serve` and servers for Whisper serve it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires import files
from orchestrator.wires.answers import bad, decoded, exact, shown, usage_of, whole, with_usage
from orchestrator.wires.batches import no_streams, one_answer
from orchestrator.wires.routes import joined
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from yarl import URL

_TEXT, _WHOLE = "json", ("verbose_json", "diarized_json")
_FORMAT = "response_format"
_TIMES = {"duration", "segments", "words"}  # OpenAI's types require the first of both; not all servers have it


@dataclass(frozen=True, slots=True)
class OpenAITranscriptionsWire:
    """A stored request is a file, or an object with `file` and parameters of its own. The answer is the text.

    With `parameters={"response_format": "verbose_json"}`, it is the whole response, with times and segments.
    """

    model: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    takes_lists = False

    def __post_init__(self) -> None:
        no_streams(self.parameters)
        if (why := _why_no_format(self.parameters)) is not None:
            raise ValueError(why)

    @property
    def identity(self) -> Mapping[str, object]:
        """Model and parameters."""
        return {"wire": "openai-transcriptions", "wire_model": self.model, "parameters": dict(self.parameters)}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL."""
        return joined(base, "v1/audio/transcriptions")

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the form for this one request (JSON)."""
        (request,) = requests
        said = exact_json.loads(request)
        fields = {"file": said} if files.is_file(said) or not isinstance(said, dict) else said
        file = fields.get("file")
        if not files.is_file(file):
            raise RequestFailed(FailureKind.REJECTED, f"not sent: a transcription needs a file, not {shown(file)}")
        fields = one_answer({"model": self.model, **self.parameters, **fields})
        if (why := _why_no_format(fields)) is not None:
            raise RequestFailed(FailureKind.REJECTED, f"not sent: {why}")
        content, boundary = await files.bytes_of(file), file["sha256"]  # which cannot occur within the file
        name = f"file{Path(file['$file']).suffix.lower()}"  # by which servers recognize the format
        parts = [part for key, value in fields.items() if key != "file" for part in _parts(key, value, boundary)]
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        parts += [f"{head}Content-Type: {file['content_type']}\r\n\r\n".encode(), content, b"\r\n"]
        return Body(b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}")

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the text, or the whole response if it has more than that."""
        answer = decoded(content)
        if not (isinstance(answer, dict) and isinstance(text := answer.get("text"), str)):
            raise bad(f"no text in the answer: {shown(answer)}")
        value: object = text
        if (wanted := self.parameters.get(_FORMAT)) in _WHOLE:
            if not _TIMES & answer.keys():
                raise bad(f"the server ignores response_format, and has no {wanted}: {shown(answer)}")
            value = whole(exact(answer))
        return with_usage([value], *usage_of(answer, "input_tokens", "output_tokens"))


def _why_no_format(fields: Mapping[str, object]) -> str | None:
    """Return why answers of this format cannot be read, or None if they can."""
    wanted = fields.get(_FORMAT, _TEXT)
    if wanted in (_TEXT, *_WHOLE):
        return None
    return f"response_format must be one of {', '.join((_TEXT, *_WHOLE))}, not {wanted!r}: answers have to be JSON"


def _parts(name: str, value: object, boundary: str) -> Iterator[bytes]:
    """Yield a field of the form; a list is a field for each of its values, with `[]` after the name."""
    if isinstance(value, list):
        for one in value:
            yield from _parts(f"{name}[]", one, boundary)
    elif value is not None:
        text = value.encode() if isinstance(value, str) else exact_json.dumps(value)
        quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        yield f'--{boundary}\r\nContent-Disposition: form-data; name="{quoted}"\r\n\r\n'.encode() + text + b"\r\n"
