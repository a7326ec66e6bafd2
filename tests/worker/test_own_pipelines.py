"""Custom pipelines: from a module that is imported first, and from the folder of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from orchestrator.worker.model import LoadFailed
from tests import tiny_models
from tests.worker.asking import outputs, serve

PAIRS = Path(__file__).parents[2] / "jobs" / "pairs"
IMPORTS = (f"pair_classification={PAIRS}",)
PAIR = {"text": "I like you", "second_text": "I love you, and for much longer than that"}


def test_a_pipeline_registered_by_an_import_is_used_as_the_official_guide_shows(tmp_path: Path) -> None:
    ask = serve(tiny_models.text_classifier(tmp_path / "model"), "pair-classification", imports=IMPORTS)
    by_parameter = {"inputs": PAIR["text"], "parameters": {"second_text": PAIR["second_text"]}}
    other = {"text": "one", "second_text": "two"}
    first, second, third, fourth = outputs(ask(PAIR, by_parameter, other, "alone"))
    assert first == {"label": first["label"], "score": pytest.approx(second["score"]), "logits": first["logits"]}
    assert len({answer["score"] for answer in (first, third, fourth)}) == 3
    assert outputs(ask(other))[0]["score"] == pytest.approx(third["score"], abs=1e-5)
    assert ask({"text": "no second"})[0]["error"]["kind"] == "dubious"


BARE = """
from transformers import Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

class BarePipeline(Pipeline):
    _load_tokenizer = _load_processor = _load_feature_extractor = _load_image_processor = False
    def _sanitize_parameters(self, times=1):
        return {"times": times}, {}, {}
    def preprocess(self, number, times):
        return {"number": number * times}
    def _forward(self, inputs):
        return inputs
    def postprocess(self, outputs):
        return outputs["number"] + 1

PIPELINE_REGISTRY.register_pipeline("bare-counting", pipeline_class=BarePipeline)
"""


def test_a_pipeline_without_a_tokenizer_gets_single_inputs(tmp_path: Path) -> None:
    (tmp_path / "bare_counting.py").write_text(BARE)
    folder = tiny_models.text_classifier(tmp_path / "model")
    ask = serve(folder, "bare-counting", imports=(f"bare_counting={tmp_path}",))
    assert outputs(ask(1, {"inputs": 5, "parameters": {"times": 3}}, 4, times=2)) == [3, 16, 9]
    assert [entry.get("output") for entry in ask(1, None, 3)] == [2, None, 4]


@pytest.mark.parametrize(("stage", "line"), [("preprocess", 10), ("_forward", 12), ("postprocess", 14)])
@pytest.mark.parametrize(
    ("raised", "kind"),
    [("ValueError('no')", "rejected"), ("KeyError('bug')", "dubious"), ("ConnectionError('away')", "unavailable")],
)
def test_errors_of_a_custom_pipeline_are_judged_like_those_of_a_handler(
    tmp_path: Path, stage: str, line: int, raised: str, kind: str
) -> None:
    name = f"raising_{stage}_{kind}"
    lines = BARE.replace("bare-counting", name.replace("_", "-")).splitlines()
    lines[line - 1] = f"        raise {raised}"
    (tmp_path / f"{name}.py").write_text("\n".join(lines))
    folder = tiny_models.text_classifier(tmp_path / "model")
    ask = serve(folder, name.replace("_", "-"), imports=(f"{name}={tmp_path}",))
    error = ask(1)[0]["error"]
    assert error["kind"] == kind
    assert error["message"].endswith(f"({name}.py, line {line})")


def test_a_model_that_does_not_fit_in_memory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    greedy = BARE.replace(
        "    def _sanitize", "    def __init__(self, **_):\n        raise MemoryError\n    def _sanitize"
    )
    (tmp_path / "greedy.py").write_text(greedy.replace("bare-counting", "greedy-counting"))
    folder = tiny_models.text_classifier(tmp_path / "model")
    with pytest.raises(LoadFailed, match=r"does not fit in memory: MemoryError: ?; see what else uses the memory"):
        serve(folder, "greedy-counting", imports=(f"greedy={tmp_path}",))


def carrying(folder: Path, task: str) -> Path:
    """Create a classifier whose config.json names a pipeline beside it."""
    tiny_models.text_classifier(folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    made = {"impl": "theirs.TheirPipeline", "pt": ["AutoModelForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(config | {"custom_pipelines": {task: made}}))
    (folder / "theirs.py").write_text("raise SystemExit('nobody trusted this')")
    return folder


@pytest.mark.parametrize("task", ["their-task", "text-classification", "feature-extraction", "summarization"])
def test_code_beside_a_model_runs_only_if_it_is_trusted(tmp_path: Path, task: str) -> None:
    with pytest.raises(LoadFailed, match=rf"task '{task}' is code that comes with model .* set trust_remote_code=True"):
        serve(carrying(tmp_path / "model", task), task)


def test_a_task_that_neither_the_model_nor_an_import_defines_is_unknown(tmp_path: Path) -> None:
    folder = carrying(tmp_path / "model", "their-task")
    with pytest.raises(LoadFailed, match=r"unknown task 'other-task'; this worker knows .*their-task"):
        serve(folder, "other-task", trust_remote_code=True)


def test_a_saved_pipeline_is_loaded_with_the_import_and_its_copy_need_not_be_trusted(tmp_path: Path) -> None:
    folder = carrying(tmp_path / "model", "pair-classification")
    ask = serve(folder, "pair-classification", imports=IMPORTS)
    assert outputs(ask(PAIR))[0].keys() == {"label", "score", "logits"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("broken_module", "1 / 0", "imports: broken_module cannot be imported: ZeroDivisionError"),
        ("fractions", "", "imports: fractions in .* needs another name: .* goes by this one"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    folder = tiny_models.encoder(tmp_path / "model")
    (tmp_path / f"{name}.py").write_text(content)
    with pytest.raises(LoadFailed, match=words):
        serve(folder, "feature-extraction", imports=(f"{name}={tmp_path}",))
