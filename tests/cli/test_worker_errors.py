"""The message if a local model cannot be served: one line with the problem and the remedy."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from tests import tiny_images, tiny_models
from tests.commands import rows
from tests.handlers import handler, written
from tests.worker.asking import png

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.commands import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]  # each case is a run of its own

OOM = "raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 79.10 GiB')"
PIPELINE = f"""
import torch
from transformers import AutoModelForSequenceClassification, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

class Huge(Pipeline):
    def __init__(self, *args, **kwargs):
        {OOM}
    def _sanitize_parameters(self, **kwargs): return {{}}, {{}}, {{}}
    def preprocess(self, x): return x
    def _forward(self, x): return x
    def postprocess(self, x): return x

PIPELINE_REGISTRY.register_pipeline("huge", pipeline_class=Huge, pt_model=AutoModelForSequenceClassification)
"""


def refused(workplace: Workplace, endpoint: str, env: Mapping[str, str] | None = None) -> str:
    """Check how a run ends if its endpoint cannot be woken; no item has lost an attempt."""
    workplace.write_rows(rows(range(3)))
    offline = {"HF_HUB_OFFLINE": "1"}
    ended = workplace.run("run", "--quiet", workplace.job(endpoint=endpoint), env=offline | dict(env or {}))
    assert ended.code == 1
    assert workplace.count("attempt") == workplace.count("result") == 0
    assert workplace.processes() == []
    return ended.line


def test_a_missing_model_is_named(workplace: Workplace) -> None:
    line = refused(workplace, "LocalEndpoint('nobody/nothing', 'text-classification')")
    assert "model 'nobody/nothing' is neither a folder nor a package that carries a model" in line
    assert "could not be downloaded from the hub" in line


def test_an_unknown_task_lists_the_known_ones(workplace: Workplace) -> None:
    folder = tiny_models.text_classifier(workplace.folder / "model")
    line = refused(workplace, f"LocalEndpoint({str(folder)!r}, 'mind-reading')")
    assert "unknown task 'mind-reading'; this worker knows any-to-any" in line
    assert "text-classification" in line


def test_a_model_that_does_not_fit_on_the_device_is_reported(workplace: Workplace) -> None:
    folder = tiny_models.text_classifier(workplace.folder / "model")
    (workplace.folder / "huge.py").write_text(PIPELINE)
    line = refused(workplace, f"LocalEndpoint({str(folder)!r}, 'huge', imports=['huge.py'])")
    assert "does not fit in memory: OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB" in line


def test_a_handler_that_does_not_fit_on_the_device_is_reported_with_the_remedy(workplace: Workplace) -> None:
    folder = handler(workplace.folder / "model", "return 1", top="import torch", start=OOM)
    line = refused(workplace, f"LocalEndpoint({str(folder)!r})")
    assert "handler.py cannot be made: OutOfMemoryError: CUDA out of memory." in line
    assert "(handler.py, line 5); see what else uses the memory (nvidia-smi), load a smaller model" in line


def test_a_package_that_a_task_needs_is_named_with_the_command_that_installs_it(workplace: Workplace) -> None:
    hides = workplace.folder / "hides"
    hides.mkdir()
    (hides / "sitecustomize.py").write_text("import sys\nsys.modules['av'] = None\n")  # as if not installed
    folder = tiny_models.text_classifier(workplace.folder / "model")
    line = refused(workplace, f"LocalEndpoint({str(folder)!r}, 'video-classification')", env={"PYTHONPATH": str(hides)})
    assert "task 'video-classification' needs the package av, which is not installed: pip install av" in line


def test_a_package_that_a_handler_needs_is_named_with_the_setting_that_installs_it(workplace: Workplace) -> None:
    folder = written(workplace.folder / "model", "import no_such_package", "no_such_package\n")
    line = refused(workplace, f"LocalEndpoint({str(folder)!r})")
    assert "'no_such_package', which is not installed: set install_requirements=True in LocalEndpoint" in line


def test_a_worker_that_crashes_while_loading_shows_its_last_output(workplace: Workplace) -> None:
    start = "print('CUDA error: device-side assert', file=sys.stderr, flush=True); os.abort()"
    folder = handler(workplace.folder / "model", "return 1", top="import os, sys", start=start)
    line = refused(workplace, f"LocalEndpoint({str(folder)!r})")
    assert "the worker was ended by SIGABRT while loading the model" in line
    assert line.endswith("its last words: CUDA error: device-side assert")


def test_a_document_without_words_is_discarded_and_the_ocr_package_is_named(workplace: Workplace) -> None:
    if importlib.util.find_spec("pytesseract") is not None:
        pytest.skip("the package is installed")
    folder = tiny_images.document_reader(workplace.folder / "model")
    image = workplace.folder / "page.png"
    image.write_bytes(png(9))
    words = [["who", [0, 0, 10, 10]]]
    workplace.write_rows(
        [
            {"id": "bare", "text": {"image": str(image), "question": "who"}},
            {"id": "read", "text": {"question": "who", "word_boxes": words}},
        ]
    )
    endpoint = f"LocalEndpoint({str(folder)!r}, 'document-question-answering')"
    ended = workplace.run("run", "--quiet", workplace.job(endpoint=endpoint, request="lambda row: row['text']"))
    assert ended.code == 3, ended.err
    ((failure),) = workplace.failures()
    assert failure["id"] == "bare"
    assert "without word_boxes" in failure["error"]["message"]
    assert "pytesseract is not available" in failure["error"]["message"]
    assert [record["id"] for record in workplace.outputs()] == ["read"]


def test_a_workers_log_stays_small_and_still_holds_its_last_output(workplace: Workplace) -> None:
    """For one item it writes 10 MB, waits until they have been truncated, and dies."""
    if sys.platform != "linux":
        pytest.skip("logs lie elsewhere")
    call = """
    if data["inputs"].endswith(" 2"):
        print("x" * 10_000_000, flush=True)
        while os.path.getsize(os.environ["LOG"]) > 1_000_000:
            time.sleep(0.02)
        print("the reason for it", flush=True)
        os.abort()
    return 1
    """
    folder = handler(workplace.folder / "model", call, top="import os, time")
    workplace.write_rows(rows(range(5)))
    log = workplace.folder / ".local" / "state" / "orchestrator" / "log" / "local-model.log"
    job = workplace.job(endpoint=f"LocalEndpoint({str(folder)!r})", policy="backoff=Backoff(first=0.01)")
    ended = workplace.run("run", "--quiet", job, env={"LOG": str(log)})
    assert ended.code == 3, ended.err
    ((failure),) = workplace.failures()
    assert failure["id"] == "i2"
    assert "its last words: the reason for it" in failure["error"]["message"]
    assert len(workplace.outputs()) == 4
    assert log.stat().st_size < 1_000_000 < log.with_name("local-model.log.1").stat().st_size
