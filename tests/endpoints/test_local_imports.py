"""What a local endpoint imports: found when the job is read, counted in the identity, run in the worker."""

from __future__ import annotations

import hashlib
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import UsageError
from orchestrator.domain.policy import Policy
from orchestrator.endpoints.local import LocalEndpoint
from orchestrator.endpoints.local_imports import find_module, fingerprint
from tests import tiny_models
from tests.commands import DEADLINE

pytestmark = pytest.mark.unmeasured

PIPELINE = Path(__file__).parents[2] / "jobs" / "pairs" / "pair_classification.py"
PAIR = b'{"text": "one", "second_text": "two"}'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.text_classifier(tmp_path_factory.mktemp("models") / "classifier")


def endpoint(model: Path, *imports: str, **settings: Any) -> LocalEndpoint:
    return LocalEndpoint(str(model), "pair-classification", imports=imports, threads=1, **settings)


async def answered(made: LocalEndpoint) -> Any:
    async with made.control() as control:
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while await control.state() is EndpointState.STARTING:
                await anyio.sleep(0.05)
        assert await control.answers(), control.status_text
        async with control.connect(Policy()) as data:
            return (await data.ask([PAIR]))[0]


@pytest.mark.slow
async def test_a_pipeline_works_from_a_file_by_name_and_from_the_folder_of_its_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_file = await anyio.to_thread.run_sync(endpoint, model, str(PIPELINE))
    answer = await answered(from_file)
    assert answer.keys() == {"label", "score", "logits"}
    monkeypatch.syspath_prepend(str(PIPELINE.parent))
    by_name = await anyio.to_thread.run_sync(endpoint, model, "pair_classification")
    assert await answered(by_name) == answer
    carried = await anyio.to_thread.run_sync(carrying, model, tmp_path / "carried")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    trusted = await anyio.to_thread.run_sync(partial(endpoint, carried, trust_remote_code=True))
    assert await answered(trusted) == answer


def carrying(model: Path, folder: Path) -> Path:
    """The model with the pipeline beside it, as `save_pretrained` leaves them."""
    shutil.copytree(model, folder)
    shutil.copy(PIPELINE, folder)
    config = (folder / "config.json").read_text().rstrip().removesuffix("}")
    impl = '{"pair-classification": {"impl": "pair_classification.PairClassificationPipeline", "pt": ['
    (folder / "config.json").write_text(
        f'{config}, "custom_pipelines": {impl}"AutoModelForSequenceClassification"]}}}}}}'
    )
    return folder


def test_imports_of_modules_beside_it_count_too(model: Path, tmp_path: Path) -> None:
    (tmp_path / "outer.py").write_text("import inner, json\n")
    (tmp_path / "inner.py").write_text("ONE = 1\n")
    before = endpoint(model, str(tmp_path / "outer.py")).identity(Policy())
    (tmp_path / "inner.py").write_text("ONE = 2\n")
    assert endpoint(model, str(tmp_path / "outer.py")).identity(Policy()) != before


def test_imports_from_another_modules_folder_count_too(model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "first.py").write_text("")
    (tmp_path / "a" / "shared.py").write_text("ONE = 1\n")
    (tmp_path / "b" / "second.py").write_text("import shared\n")
    paths = str(tmp_path / "a" / "first.py"), str(tmp_path / "b" / "second.py")
    before = endpoint(model, *paths).identity(Policy())
    (tmp_path / "a" / "shared.py").write_text("ONE = 2\n")
    assert endpoint(model, *paths).identity(Policy()) != before


def test_the_fingerprint_of_a_module_without_imports_has_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "alone.py"
    path.write_text("import json\n")
    content = hashlib.sha256(path.read_bytes()).digest()
    assert fingerprint(find_module(str(path))) == hashlib.sha256(b"alone.py\0" + content).hexdigest()


def test_imported_modules_count_by_content_and_not_by_path(model: Path, tmp_path: Path) -> None:
    moved = tmp_path / "pair_classification.py"
    shutil.copy(PIPELINE, moved)
    first, second = (endpoint(model, str(path)).identity(Policy()) for path in (PIPELINE, moved))
    assert first == second
    moved.write_text(moved.read_text() + "\n")
    assert endpoint(model, str(moved)).identity(Policy()) != first
    assert "imports" not in endpoint(model).identity(Policy())


def test_all_modules_of_a_package_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own_pipes"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__", "one", "deep/__init__", "deep/two"):
        (package / f"{name}.py").write_text("raise SystemExit('looked at, not imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    whole, one, deep = (find_module(f"own_pipes{part}") for part in ("", ".one", ".deep.two"))
    assert (one.argument, deep.path) == (f"own_pipes.one={tmp_path}", package / "deep" / "two.py")
    before = fingerprint(whole), fingerprint(one)
    (package / "deep" / "two.py").write_text("pass")
    assert fingerprint(whole) != before[0]
    assert fingerprint(one) == before[1]
    assert "own_pipes" not in sys.modules


@pytest.mark.parametrize("given", ["no_such_module", "json.no_such", "not a name", "nowhere.py", "sys", "", ".x"])
def test_an_invalid_module_is_refused_when_the_job_is_read(model: Path, given: str) -> None:
    with pytest.raises(UsageError, match="imports"):
        endpoint(model, given)


def test_a_single_module_must_be_in_a_list(model: Path) -> None:
    with pytest.raises(UsageError, match=r"imports is a list of modules, such as \['pairs'\]"):
        LocalEndpoint(str(model), "pair-classification", imports="pairs")
