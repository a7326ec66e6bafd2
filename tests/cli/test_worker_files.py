"""Images and recordings from a folder, sent to models on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from tests import tiny_models, tiny_sounds
from tests.worker.asking import noise, tone, wav

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.commands import Workplace

pytestmark = [pytest.mark.model, pytest.mark.unmeasured]

CASES: list[tuple[str, Callable[[Path], Path], Mapping[str, bytes], str]] = [
    ("image-classification", tiny_models.image_classifier, {"a.png": noise(1), "b.png": noise(2)}, "label"),
    (
        "automatic-speech-recognition",
        tiny_sounds.letter_recognizer,
        {"a.wav": wav(tone(16000), 16000), "b.wav": wav(tone(48000), 48000)},
        "text",
    ),
]


@pytest.mark.parametrize(("task", "make", "files", "field"), CASES, ids=[case[0] for case in CASES])
def test_each_file_gets_its_answer_and_an_invalid_file_is_discarded(
    workplace: Workplace, task: str, make: Callable[[Path], Path], files: Mapping[str, bytes], field: str
) -> None:
    model, folder = workplace.folder / "model", workplace.folder / "in"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / f"broken.{name[-3:]}").write_bytes(content[:20])
    job = workplace.job(
        prelude="from orchestrator.sources import FilesSource",
        source="FilesSource('in/*', id='name')",
        request="'{file}'",
        endpoint=f"LocalEndpoint({str(make(model))!r}, {task!r}, threads=1)",
        sink="JsonlSink('out.jsonl', keep=['name'])",
    )
    ended = workplace.run("run", "--quiet", job)
    assert ended.code == 3, ended.err
    assert [row["name"] for row in workplace.outputs()] == list(files)
    for row in workplace.outputs():
        answer = row["output"][0] if isinstance(row["output"], list) else row["output"]
        assert field in answer
    (failure,) = workplace.failures()
    assert failure["id"].startswith("broken.")
    assert failure["error"]["kind"] == "rejected"
